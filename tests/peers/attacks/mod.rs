//! Attacks on a secured site, over real sockets, by somebody who holds everything on a stolen station's disk: nothing
//! wrong is ever played, and the site keeps working.

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
