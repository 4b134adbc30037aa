//! What happened, as one enum: the console, the JSON lines, the log and the tests see the same facts.

use serde::Serialize;
use tokio::sync::mpsc;

/// One fact from either role. `docs/events.md` gives every field and its unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The announcer accepts stations.
    Listening {
        /// The bound address, `IP:PORT`.
        address: String,
    },
    /// A station said hello and was welcomed.
    StationJoined {
        /// The station's name.
        station: String,
        /// Its address, `IP:PORT`.
        address: String,
        /// The zones it declared.
        zones: Vec<String>,
    },
    /// A station that was waiting for clips is gone; one that merely reconnects is not reported.
    StationLeft {
        /// The station's name.
        station: String,
        /// Why, in words.
        reason: String,
    },
    /// The microphone runs.
    Recording {
        /// The clip's length to be, in milliseconds.
        length_ms: u64,
        /// The microphone's name.
        input: String,
    },
    /// How the recording goes, some 20 times a second. Not printed by `--events json`.
    Level {
        /// Time still to record, in milliseconds.
        remaining_ms: u64,
        /// The loudest sample since the last report, in dB below full scale (0 is full scale, −100 the least).
        peak_db: f32,
    },
    /// The recording was dropped; nothing is sent.
    Cancelled,
    /// A clip is recorded and sealed.
    Recorded {
        /// The clip's id.
        clip: String,
        /// Its length in milliseconds.
        length_ms: u64,
        /// Samples a second.
        rate_hz: u32,
        /// The WAV's size in bytes, header included.
        bytes: u64,
        /// SHA-256 of the WAV, in hex.
        sha256: String,
        /// Its loudest sample, in dB below full scale (−100 for pure silence).
        peak_db: f32,
        /// The microphone's name.
        input: String,
    },
    /// A clip goes out.
    Sending {
        /// The clip's id.
        clip: String,
        /// The stations that should play it.
        stations: Vec<String>,
    },
    /// How a clip goes out, while that takes long: some four times a second.
    Progress {
        /// The clip's id.
        clip: String,
        /// Bytes handed to the network so far, to all stations together.
        sent_bytes: u64,
        /// Bytes to be sent in all.
        total_bytes: u64,
        /// Stations that have it whole.
        verified: usize,
        /// Stations that are being sent it, or were.
        stations: usize,
        /// At the speed so far, until all have it, in milliseconds.
        left_ms: u64,
    },
    /// A station has the clip whole, and its hash is right.
    Verified {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
    },
    /// A station refused the clip: it was not played.
    Rejected {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
        /// Why, in words.
        reason: String,
    },
    /// A station's loudspeaker has begun.
    Playing {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
    },
    /// A station played the clip to its last sample.
    Played {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
        /// Frames played, at the clip's rate.
        frames: u64,
        /// How much later than the agreed instant it began, in milliseconds; 0 when in step.
        late_ms: u64,
        /// How far its first sample was from the instant it was given, in µs, as the station
        /// measured it; later is positive.
        start_error_us: i64,
        /// The largest distance from step while it played, in µs, as the station measured it.
        max_error_us: u64,
        /// Times the sound device ran dry while playing.
        underruns: u32,
    },
    /// A station did not play the clip to its end.
    Failed {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
        /// Why, in words.
        reason: String,
    },
    /// The verdict: every station that should have played the clip has answered or was given up.
    Done {
        /// The clip's id.
        clip: String,
        /// Stations that played it to the end.
        played: usize,
        /// Stations that should have.
        expected: usize,
        /// Those that did not, and why.
        missing: Vec<Missing>,
    },
    /// A station has found its announcer.
    Connected {
        /// The announcer's address as dialled.
        announcer: String,
    },
    /// A station waits for its announcer; said once an outage, not at every try.
    Waiting {
        /// The announcer's address as dialled.
        announcer: String,
        /// Why, in words.
        reason: String,
    },
    /// Something the operator should look at.
    Warning {
        /// One sentence.
        message: String,
    },
}

/// A station that should have played a clip and did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The station's name.
    pub station: String,
    /// Why, in words.
    pub reason: String,
}

/// What the operator asks of the announcer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Record a clip and send it.
    Announce,
    /// Drop the recording that runs.
    Cancel,
    /// Wait for the last verdict and end.
    Leave,
}

/// The most events that wait for a slow reader; beyond it new ones are dropped. A page tells four of each
/// of its stations, and they all may come within a moment.
pub const MAX_WAITING_EVENTS: usize = 65_536;

/// Where a role tells what happens. Cheap to clone; never blocks the teller.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// A pair of teller and listener.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(MAX_WAITING_EVENTS);
        (Self(sender), receiver)
    }

    /// Tells one event. When the listener is gone or [`MAX_WAITING_EVENTS`] wait, it is dropped:
    /// a stopped reader of standard output must not stop an announcement.
    pub fn tell(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.0.try_send(event) {
            tracing::warn!(?event, "nobody reads the events; one was dropped");
        }
    }
}
