//! Attacks on a secured site, over real sockets, by somebody who holds everything that a stolen
//! station's disk holds: nothing wrong is ever played, and the site goes on.

mod announcers;
pub mod building;
mod clips;
mod floods;
mod forgeries;
mod live;
mod mask;
mod middle;
mod proxy;
mod receipts;
mod removal;
mod replays;
mod several;
mod stations;
mod strangers;
mod talkback;
