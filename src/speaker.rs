//! The speaker station: dial → verify → play → receipt → reconnect.

mod network;
pub mod redial;
mod session;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::devices::HealthWatch;
use crate::event::{Event, Events};
use crate::keys::NoisePublicKey;
use crate::link::{self, Connection, LinkError, StationLink};
use crate::loudspeaker::Loudspeaker;
use crate::membership::{Membership, MembershipError};
use crate::volume::Volume;
use network::Tcp;
use redial::{DIAL_DEADLINE, Redial};
use session::{Memory, Session};

pub use network::Network;

/// A connection that stood for this long was no failure: the pauses begin anew.
pub const STANDING: Duration = Duration::from_secs(3);
/// How long the archive has to be written when the station leaves.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// Why a station cannot go on. What can pass by itself is not among them.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// The name of the announcer's machine is not known when the station starts.
    #[error("cannot find the announcer's machine {host}: check the name, or give its IP address")]
    Resolve {
        /// The name that was given.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

/// Which station to be.
#[derive(Debug)]
pub struct Config {
    /// The announcer's machine, by name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The station's name; see [`crate::wire::is_name`].
    pub name: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// How it knows its announcer and is known by it; without it, it plays for anybody.
    pub membership: Option<Membership>,
    /// How much later than the others its loudspeaker plays, in µs; earlier is negative.
    pub delay_us: i64,
    /// How loud it plays unless its announcer says otherwise.
    pub volume: Volume,
    /// Where clips are kept.
    pub archive: Option<Archive>,
}

/// Why no link came about.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

impl DialError {
    /// Whether an announcer answered, and does not want this station.
    fn is_refusal(&self) -> bool {
        use LinkError::{Busy, OtherMode, OtherVersion, Wire};
        matches!(self, Self::Link(Busy | OtherMode | OtherVersion { .. } | Wire(_)))
    }
}

/// How one connection ended.
enum End {
    /// As agreed, after a clip.
    Served,
    /// Against plan.
    Lost(String),
    /// The announcer answered and does not want this station.
    Refused(String),
    /// The station is told to leave.
    Shutdown,
}

/// Runs a station until `shutdown` is cancelled.
///
/// # Errors
/// [`SpeakerError`], only at the start: a running station waits for its announcer for ever.
pub async fn run(
    config: Config,
    loudspeaker: Loudspeaker,
    events: Events,
    shutdown: CancellationToken,
) -> Result<(), SpeakerError> {
    run_on(Tcp::default(), config, loudspeaker, events, shutdown).await
}

/// The same, over any network. Dropping the future ends all of it, as a crash would.
///
/// # Errors
/// Those of [`run`].
pub async fn run_on(
    mut network: impl Network,
    mut config: Config,
    mut loudspeaker: Loudspeaker,
    events: Events,
    shutdown: CancellationToken,
) -> Result<(), SpeakerError> {
    let announcer = if config.host.contains(':') {
        format!("[{}]:{}", config.host, config.port)
    } else {
        format!("{}:{}", config.host, config.port)
    };
    let found = network.find(&config.host, config.port).await;
    found.map_err(|source| SpeakerError::Resolve { host: config.host.clone(), source })?;
    let (instance, health) = (getrandom::u64().map_err(SpeakerError::Random)?, loudspeaker.health());
    let watch = tell_health(config.name.clone(), health.clone(), events.clone());
    let mut memory = Memory::new(instance, config.membership.take(), health);
    tokio::select! {
        biased;
        () = serve(&mut network, &config, &announcer, &mut memory, &mut loudspeaker, &events, &shutdown) => (),
        never = watch => match never {},
    }
    if let Some(archive) = &config.archive {
        archive.close(LEAVE_DEADLINE).await;
    }
    Ok(())
}

/// Dials and takes clips, again and again, until `shutdown` is cancelled.
async fn serve(
    network: &mut impl Network,
    config: &Config,
    announcer: &str,
    memory: &mut Memory,
    loudspeaker: &mut Loudspeaker,
    events: &Events,
    shutdown: &CancellationToken,
) {
    let mut redial = Redial::default();
    let mut outage = true;
    let mut told = false;
    loop {
        let mut welcomed = None;
        let mut joined = |outage: &mut bool, told: &mut bool| {
            welcomed = Some(Instant::now());
            if std::mem::take(outage) {
                events.tell(Event::Connected { announcer: announcer.to_owned() });
            }
            *told = false;
        };
        let end = tokio::select! {
            biased;
            () = shutdown.cancelled() => End::Shutdown,
            connected = dial(network, &mut memory.membership) => match connected {
                Err(error) if error.is_refusal() => End::Refused(crate::error_chain(&error)),
                Err(error) => End::Lost(crate::error_chain(&error)),
                Ok(link) => {
                    let session = Session::new(link, config, memory, events, shutdown);
                    session.run(loudspeaker, || joined(&mut outage, &mut told)).await
                }
            },
        };
        let refused = matches!(end, End::Refused(_));
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
                if !std::mem::replace(&mut told, true) {
                    events.tell(Event::Waiting { announcer: announcer.to_owned(), reason });
                }
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = sleep(redial.pause(refused, network.random(), Instant::now())) => (),
        }
    }
}

/// Tells whether the loudspeaker works, also while there is no announcer to tell.
async fn tell_health(station: String, mut health: HealthWatch, events: Events) -> Infallible {
    let mut was_faulty = false;
    loop {
        match health.fault() {
            Some(reason) => events.tell(Event::StationFaulty { station: station.clone(), reason }),
            None if was_faulty => events.tell(Event::StationHealthy { station: station.clone() }),
            None => (),
        }
        was_faulty = health.fault().is_some();
        health.changed().await;
    }
}

async fn dial<N: Network>(
    network: &mut N,
    membership: &mut Option<Membership>,
) -> Result<(StationLink<N::Connection>, Option<NoisePublicKey>), DialError> {
    let introduction = membership.as_mut().map(Membership::introduction).transpose()?;
    let connect = network.connect();
    let stream = timeout(DIAL_DEADLINE, connect).await.map_err(|_| LinkError::Silent(DIAL_DEADLINE))?;
    let stream = stream.map_err(LinkError::from)?;
    stream.prepare().map_err(LinkError::from)?;
    Ok(link::dial(stream, introduction).await?)
}

/// A station's clock starts when the station does.
fn clock_us(base: Instant, instant: Instant) -> u64 {
    u64::try_from(instant.saturating_duration_since(base).as_micros()).unwrap_or(u64::MAX)
}
