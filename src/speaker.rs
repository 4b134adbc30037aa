//! The speaker station: dial → verify → play → receipt → reconnect.

mod arbiter;
mod dial;
mod directory;
mod network;
pub mod redial;
mod session;
pub mod talkback;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::devices::HealthWatch;
use crate::event::{Event, Events};
use crate::loudspeaker::Loudspeaker;
use crate::membership::Membership;
use crate::volume::Volume;
use arbiter::Arbiter;
use dial::DialError;
use network::Tcp;
use redial::Redial;
use session::{Memory, Session};
use talkback::{Talkback, Uplink};

pub use network::Network;

/// A connection that lasted at least this long counts as a success: the pauses start from the shortest again.
pub const STANDING: Duration = Duration::from_secs(3);
/// How long the archive may take to write when the station leaves.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// Why a station cannot run. Faults that can pass by themselves are not included.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// The name of the only announcer's machine cannot be looked up when an attended station starts.
    #[error("cannot find the announcer's machine {host}: check the name, or give its IP address")]
    Resolve {
        /// The name that was given.
        host: String,
        /// The system's error.
        source: io::Error,
    },
    /// The system provides no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// The configuration of a station.
#[derive(Debug)]
pub struct Config {
    /// The announcers whose pages it plays. Events name an announcer by the host and port given here.
    pub announcers: Vec<Announcer>,
    /// The station's name; see [`crate::wire::is_name`].
    pub name: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// How much later than the other stations its loudspeaker plays, in µs; negative means earlier.
    pub delay_us: i64,
    /// How loud it plays unless an announcer says otherwise.
    pub volume: Volume,
    /// Where clips are kept.
    pub archive: Option<Archive>,
    /// How it talks back; without it, nothing is ever recorded.
    pub talkback: Option<Talkback>,
    /// Whether somebody watches the station. If so, the station stops with an error when the only announcer's name cannot be
    /// looked up at the start. Otherwise it waits for the name server.
    pub is_attended: bool,
}

/// One of a station's announcers.
#[derive(Debug)]
pub struct Announcer {
    /// Its machine, by name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The station's membership with this announcer; without it, the station plays for anybody.
    pub membership: Option<Membership>,
}

impl Announcer {
    /// The address as dialled: `HOST:PORT`.
    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// How one connection ended.
enum End {
    /// As planned, after a clip.
    Served,
    /// Unexpectedly.
    Lost(String),
    /// The announcer answered and refused this station.
    Refused(String),
    /// The station is shutting down.
    Shutdown,
}

/// Runs a station until `shutdown` is cancelled.
///
/// # Errors
/// [`SpeakerError`], only at the start: a running station waits for its announcer forever.
pub async fn run(
    config: Config,
    loudspeaker: Loudspeaker,
    events: Events,
    shutdown: CancellationToken,
) -> Result<(), SpeakerError> {
    let networks = config.announcers.iter().map(|_| Tcp::default()).collect();
    run_on(networks, config, loudspeaker, events, shutdown).await
}

/// Like [`run`], over any network: one for each announcer, in order. Dropping the future stops everything at once, as a crash
/// would.
///
/// # Errors
/// The same errors as [`run`].
pub async fn run_on(
    networks: Vec<impl Network>,
    mut config: Config,
    loudspeaker: Loudspeaker,
    events: Events,
    shutdown: CancellationToken,
) -> Result<(), SpeakerError> {
    let (instance, health) = (getrandom::u64().map_err(SpeakerError::Random)?, loudspeaker.health());
    let (announcers, talkback) = (std::mem::take(&mut config.announcers), config.talkback.take());
    let networks: Vec<_> = networks.into_iter().map(Mutex::new).collect();
    let mut is_found = false;
    // One of several announcers may be away, and its name unknown: it is looked up while the others are served.
    if let ([network], [Announcer { host, port, .. }], true) =
        (&networks[..], &announcers[..], config.is_attended)
    {
        let found = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            found = dial::find(network, host, *port) => found,
        };
        match found {
            Err(DialError::Lookup(source)) if source.kind() != io::ErrorKind::TimedOut => {
                return Err(SpeakerError::Resolve { host: host.clone(), source });
            }
            found => is_found = found.is_ok(),
        }
    }
    let watch = tell_health(config.name.clone(), health.clone(), events.clone());
    let station = Station { config, arbiter: Arbiter::new(loudspeaker), events, shutdown };
    let (mut served, mut uplinks) = (Vec::new(), Vec::new());
    for (network, mut announcer) in networks.iter().zip(announcers) {
        let memory = Memory::new(instance, announcer.membership.take(), health.clone());
        uplinks.push(Uplink { address: announcer.address(), network, welcome: memory.welcome.subscribe() });
        served.push(Box::pin(station.serve(network, announcer, memory, is_found)));
    }
    let talks = async {
        match talkback {
            Some(talkback) => talkback::serve(talkback, uplinks, &station.config.name, &station.events).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = all(served) => (),
        never = watch => match never {},
        never = talks => match never {},
    }
    if let Some(archive) = &station.config.archive {
        archive.close(LEAVE_DEADLINE).await;
    }
    Ok(())
}

/// Waits until all futures are done.
async fn all(mut futures: Vec<Pin<Box<impl Future<Output = ()>>>>) {
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The parts of a station that exist once, however many announcers it serves.
struct Station {
    config: Config,
    arbiter: Arbiter,
    events: Events,
    shutdown: CancellationToken,
}

impl Station {
    /// Dials an announcer and receives its clips, again and again, until the station shuts down.
    async fn serve<N: Network>(
        &self,
        network: &Mutex<N>,
        announcer: Announcer,
        mut memory: Memory,
        mut is_found: bool,
    ) {
        let Self { config, arbiter, events, shutdown } = self;
        let address = announcer.address();
        let mut redial = Redial::default();
        let mut outage = true;
        let mut told = Told::Nothing;
        loop {
            let mut welcomed = None;
            let mut joined = |outage: &mut bool, told: &mut Told| {
                welcomed = Some(Instant::now());
                if std::mem::take(outage) {
                    events.tell(Event::Connected { announcer: address.clone() });
                }
                *told = Told::Nothing;
            };
            let connect = async {
                if !is_found {
                    dial::find(network, &announcer.host, announcer.port).await?;
                    is_found = true;
                }
                let introduction = memory.membership.as_mut().map(Membership::introduction).transpose()?;
                dial::dial(network, introduction).await
            };
            let end = tokio::select! {
                biased;
                () = shutdown.cancelled() => End::Shutdown,
                connected = connect => match connected {
                    Err(error) if error.is_refusal() => End::Refused(crate::error_chain(&error)),
                    Err(error) => End::Lost(crate::error_chain(&error)),
                    Ok(link) => {
                        let session = Session::<N::Connection>::new(link, (config, arbiter), &mut memory, events, shutdown);
                        session.run(|| joined(&mut outage, &mut told)).await
                    }
                },
            };
            let refused = matches!(end, End::Refused(_));
            let news = if refused { Told::Refused } else { Told::Lost };
            match end {
                End::Served => {
                    redial = Redial::default();
                    continue;
                }
                End::Shutdown => return,
                End::Lost(reason) | End::Refused(reason) => {
                    outage = true;
                    if welcomed.is_some_and(|at: Instant| at.elapsed() >= STANDING) {
                        redial = Redial::default();
                    }
                    if news > told {
                        told = news;
                        events.tell(Event::Waiting { announcer: address.clone(), reason });
                    }
                }
            }
            let random = network.lock().await.random();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(redial.pause(refused, random, Instant::now())) => (),
            }
        }
    }
}

/// What has been reported about an outage so far. The station reports once that it is waiting, and once more when the announcer
/// refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Lost,
    Refused,
}

/// Reports whether the loudspeaker works, also while no announcer is connected.
async fn tell_health(station: String, mut health: HealthWatch, events: Events) -> Infallible {
    let mut warnings = health.clone();
    let mut was_faulty = false;
    loop {
        match health.fault() {
            Some(reason) => events.tell(Event::StationFaulty { station: station.clone(), reason }),
            None if was_faulty => events.tell(Event::StationHealthy { station: station.clone() }),
            None => (),
        }
        was_faulty = health.fault().is_some();
        loop {
            tokio::select! {
                () = health.changed() => break,
                message = warnings.warned() => events.tell(Event::Warning { message }),
            }
        }
    }
}

/// A station's clock starts when the station does.
fn clock_us(base: Instant, instant: Instant) -> u64 {
    u64::try_from(instant.saturating_duration_since(base).as_micros()).unwrap_or(u64::MAX)
}
