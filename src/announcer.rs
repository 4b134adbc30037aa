//! The announcer: key press → record → send → collect receipts → verdict.

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

/// The clip's length if neither the user nor a file specifies one.
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(5);
/// The most stations that can listen at once, unless `--max-stations` sets another limit.
pub const DEFAULT_MAX_STATIONS: usize = 10_000;
/// The highest value `--max-stations` accepts: as many as can join.
pub const MAX_STATIONS: usize = crate::keys::MAX_STATIONS;
/// The most reports that wait for the desk; when the queue is full, connections wait.
const MAX_WAITING_REPORTS: usize = 1_024;
/// How long to wait after the system refuses a connection (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The least time between two log messages about refused connections.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// How long connections stay open while the announcer leaves, so that a station about to join still receives the
/// reason.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long connections and disk writes have to finish when the announcer leaves.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// Why the announcer cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncerError {
    /// The address of the listening socket cannot be read.
    #[error("cannot tell which address the announcer listens on")]
    Listener(#[source] io::Error),
    /// The system provides no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// The order of zones, or how far stations have talked back, cannot be read from the state folder; or there are no
    /// random numbers.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// The settings of an announcer.
#[derive(Debug)]
pub struct Config {
    /// The clip's length; if absent, the length of the file, or [`DEFAULT_LENGTH`].
    pub length: Option<Duration>,
    /// The sample rate of every clip in Hz, from [`crate::clip::MIN_RATE_HZ`] to [`crate::clip::MAX_RATE_HZ`]; if
    /// absent, the microphone's own rate.
    pub rate_hz: Option<u32>,
    /// How sound is processed before it is sent.
    pub preparation: Preparation,
    /// Where each clip is played before [`Command::Send`] sends it.
    pub monitor: Option<SharedLoudspeaker>,
    /// The most stations that can listen at once; further ones are refused.
    pub max_stations: usize,
    /// The zones that announcements are for, until [`Command::Address`] changes them; none means all stations.
    pub zones: Vec<String>,
    /// How urgent announcements are, except those after [`Command::Emergency`].
    pub priority: Priority,
    /// How long a clip is kept for stations that are away; zero means not at all.
    pub keep: Duration,
    /// How long to wait for the other stations once half of them have the clip.
    pub wait: Duration,
    /// Whether [`Command::Announce`] starts and ends live speech.
    pub live: bool,
    /// The delay between speaking and hearing in live speech, from [`MIN_LATENCY`] to [`MAX_LATENCY`].
    pub latency: Duration,
    /// If set, the announcer waits for this many stations, announces once and leaves.
    pub once: Option<usize>,
    /// Whether commands are lines: each makes one announcement, one after the other. If not, a command to announce is
    /// ignored while recording.
    pub lines: bool,
    /// Who may listen, and on whose behalf the announcer speaks; if absent, anybody may do either.
    pub site: Option<Arc<Site>>,
    /// Where announcements are archived.
    pub archive: Option<Archive>,
    /// Where stations that talk back are heard; if absent, they are refused.
    pub talkback: Option<Hearing>,
}

/// Where talkback is heard and kept.
#[derive(Debug)]
pub struct Hearing {
    /// The loudspeaker that plays it while the announcer is not recording.
    pub loudspeaker: SharedLoudspeaker,
    /// The archive that keeps it.
    pub archive: Archive,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Whether every station that should have played an announcement did so, and with [`Config::once`] at least one
    /// did.
    pub all_heard: bool,
}

/// Runs the announcer until it is asked to leave, its commands end, or it has announced once. Cancelling `shutdown`
/// drops a recording in progress; announcements already on their way still reach their verdict.
///
/// # Errors
/// [`AnnouncerError`]; a failing microphone or station never stops the announcer.
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

/// Like [`run`], but for connections from any source. Dropping the future stops everything at once, as a crash would.
///
/// # Errors
/// The same errors as [`run`].
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
    // Nothing is lost if a connection does not close in time: every verdict has been reached.
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
                        // After a crash (`gone`) there is no farewell.
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
