//! The announcer: a key press → record → send → collect receipts → verdict.

mod bind;
mod connection;
mod desk;
mod door;
mod listener;
mod live;
mod memory;
mod recording;
mod room;
mod talkback;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::archive::Archive;
use crate::event::{Command, Event, Events};
use crate::keys::KeysError;
use crate::loudspeaker::SharedLoudspeaker;
use crate::microphone::Microphone;
use crate::prepare::Preparation;
use crate::priority::Priority;
use crate::site::Site;
use crate::stations::ConnectionId;
use connection::{AnnouncerClock, Host};
use desk::Desk;
use door::Door;
use listener::TcpDoor;
use room::Room;
use talkback::Talkback;

pub use bind::{ListenError, ListenOn, listen};
pub use listener::Listen;
pub use live::{DEFAULT_LATENCY, MAX_LATENCY, MAX_LIVE, MIN_LATENCY};

/// The clip's length where neither the user nor a file gives one.
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(5);
/// The most stations that listen at once unless `--max-stations` says otherwise.
pub const DEFAULT_MAX_STATIONS: usize = 10_000;
/// The most that `--max-stations` may say: as many as can join.
pub const MAX_STATIONS: usize = crate::keys::MAX_STATIONS;
/// Reports that may wait for the desk; connections wait when there are more.
const MAX_WAITING_REPORTS: usize = 1_024;
/// How long to wait after the system refused a connection (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often that is logged.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// How long who is about to join has to be told that the announcer leaves.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long connections have to end when the announcer leaves.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// Why the announcer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncerError {
    /// The listening socket cannot be asked for its address.
    #[error("cannot tell which address the announcer listens on")]
    Listener(#[source] io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// The state folder does not tell how far stations have talked back, or there are no random numbers.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// How to announce.
#[derive(Debug)]
pub struct Config {
    /// The clip's length; without it a file's own, or [`DEFAULT_LENGTH`].
    pub length: Option<Duration>,
    /// Samples a second of every clip, [`crate::clip::MIN_RATE_HZ`] to [`crate::clip::MAX_RATE_HZ`]; without it the
    /// microphone's own.
    pub rate_hz: Option<u32>,
    /// What is done to a sound before it is sent.
    pub preparation: Preparation,
    /// Where each clip is heard before [`Command::Send`] sends it.
    pub monitor: Option<SharedLoudspeaker>,
    /// The most stations that listen at once; further ones are refused.
    pub max_stations: usize,
    /// The zones announcements are for, until [`Command::Address`]; none means all stations.
    pub zones: Vec<String>,
    /// How urgent announcements are, save those after [`Command::Emergency`].
    pub priority: Priority,
    /// How long a clip is kept for stations that are away; zero for not at all.
    pub keep: Duration,
    /// How long the others are waited for once half of the stations have the clip.
    pub wait: Duration,
    /// [`Command::Announce`] begins live speech, and ends it.
    pub live: bool,
    /// How long after it was said live speech is heard, [`MIN_LATENCY`] to [`MAX_LATENCY`].
    pub latency: Duration,
    /// Wait for so many stations, announce once and leave.
    pub once: Option<usize>,
    /// Commands are lines: each announces, one after the other. Otherwise a command to announce
    /// while recording does nothing.
    pub lines: bool,
    /// Who may listen and on whose behalf is spoken; without it anybody may do either.
    pub site: Option<Arc<Site>>,
    /// Where announcements are archived.
    pub archive: Option<Archive>,
    /// Where stations that talk back are heard; without it they are refused.
    pub talkback: Option<Hearing>,
}

/// Where talkback is heard and kept.
#[derive(Debug)]
pub struct Hearing {
    /// Where it is heard, while the announcer does not record.
    pub loudspeaker: SharedLoudspeaker,
    /// Where it is kept.
    pub archive: Archive,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Every announcement was played by every station that should have, and with
    /// [`Config::once`] by one at least.
    pub all_heard: bool,
}

/// Runs the announcer until it is told to leave, its commands end, or it has announced once.
/// A recording in progress is dropped when `shutdown` is cancelled; announcements on their way are
/// seen through to their verdict.
///
/// # Errors
/// [`AnnouncerError`]; a failing microphone or station never ends it.
pub async fn run(
    listener: TcpListener,
    microphone: Microphone,
    config: Config,
    commands: mpsc::Receiver<Command>,
    events: Events,
    shutdown: CancellationToken,
) -> Result<Summary, AnnouncerError> {
    run_on(TcpDoor::new(listener), microphone, config, commands, events, shutdown).await
}

/// The same, for connections that come from anywhere. Dropping the future ends all of it, as a crash would.
///
/// # Errors
/// Those of [`run`].
pub async fn run_on(
    listener: impl Listen,
    microphone: Microphone,
    mut config: Config,
    commands: mpsc::Receiver<Command>,
    events: Events,
    shutdown: CancellationToken,
) -> Result<Summary, AnnouncerError> {
    let address = listener.local_addr().map_err(AnnouncerError::Listener)?;
    let clock =
        AnnouncerClock { base: Instant::now(), id: getrandom::u64().map_err(AnnouncerError::Random)? };
    let (reports, inbox) = mpsc::channel(MAX_WAITING_REPORTS);
    let tasks = TaskTracker::new();
    let gone = CancellationToken::new();
    let closing = gone.child_token();
    let _ends_with_this = gone.clone().drop_guard();
    let (is_recording, records) = watch::channel(false);
    let (talkback, player) = match config.talkback.take() {
        Some(hearing) => Some(Talkback::open(hearing, config.site.clone(), events.clone())?),
        None => None,
    }
    .unzip();
    let host = Host { clock, site: config.site.clone(), desk: reports, talkback: talkback.clone() };
    let for_talkback = if talkback.is_some() { talkback::MAX_BYTES as u64 } else { 0 };
    let (room, warnings) = Room::make(config.max_stations, for_talkback);
    if let Some(player) = player {
        tasks.spawn(player.run(records, closing.clone()));
    }
    tasks.spawn(accept(listener, room, host, tasks.clone(), closing.clone(), gone));
    events.tell(Event::Listening { address: address.to_string() });
    for message in warnings {
        events.tell(Event::Warning { message });
    }
    if let Some(fault) = config.site.as_ref().and_then(|site| site.fault()) {
        let message = format!("this run is not written down, and goes on: {}", crate::error_chain(fault));
        events.tell(Event::Warning { message });
    }
    let desk = Desk::new(microphone, config, room.stations, events, clock, is_recording)?;
    let summary = desk.run(inbox, commands, shutdown).await;
    closing.cancel();
    tasks.close();
    // A connection that does not end in time has lost nothing: every verdict is given.
    let _ = tokio::time::timeout(LEAVE_DEADLINE, tasks.wait()).await;
    if let Some(talkback) = talkback {
        talkback.archive().close(LEAVE_DEADLINE).await;
    }
    Ok(summary)
}

async fn accept(
    mut listener: impl Listen,
    room: Room,
    host: Host,
    tasks: TaskTracker,
    closing: CancellationToken,
    gone: CancellationToken,
) {
    let door = Door::new(room.strangers);
    let mut warned: Option<Instant> = None;
    let mut connection: ConnectionId = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let Some(place) = door.enter_soon(address.ip()).await else {
                    connection::turn_away(&stream, host.site.is_some());
                    continue;
                };
                connection += 1;
                let serve = connection::serve(stream, address, connection, place, host.clone());
                let (closing, gone) = (closing.clone(), gone.clone());
                tasks.spawn(async move {
                    let ended = async {
                        closing.cancelled().await;
                        // Who is gone, as in a crash, says no farewell.
                        let _ = tokio::time::timeout(FAREWELL, gone.cancelled()).await;
                    };
                    tokio::select! { biased; () = ended => (), () = serve => () }
                });
            }
            Err(error) => {
                if warned.is_none_or(|at| at.elapsed() >= ACCEPT_WARNING_INTERVAL) {
                    tracing::warn!(%error, "cannot accept a station just now");
                    warned = Some(Instant::now());
                }
                let turn_away = |stream: &_| connection::turn_away(stream, host.site.is_some());
                if !listener.relieve(&error, turn_away).await {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
