//! Everything that happens, as one enum: the console, the JSON lines, the log and the tests see the same facts.

mod channel;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::microphone::Lost;
use crate::priority::Priority;
use crate::wire::LiveReceipt;

pub use channel::{Events, MAX_WAITING_EVENTS, WeakEvents};

/// One fact from either role. `docs/events.md` describes every field and its unit.
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
    /// A station's loudspeaker does not work: it cannot play until [`Event::StationHealthy`].
    StationFaulty {
        /// The station's name.
        station: String,
        /// Why, in words.
        reason: String,
    },
    /// A station's loudspeaker works again.
    StationHealthy {
        /// The station's name.
        station: String,
    },
    /// The announcer's microphone does not work: nothing can be recorded until [`Event::MicrophoneHealthy`].
    MicrophoneFaulty {
        /// The microphone's name.
        input: String,
        /// Why, in words.
        reason: String,
    },
    /// The announcer's microphone works again.
    MicrophoneHealthy {
        /// The microphone's name.
        input: String,
    },
    /// A recording begins.
    Recording {
        /// The intended length of the clip, in milliseconds.
        length_ms: u64,
        /// The microphone's name.
        input: String,
    },
    /// How the recording is going, some 20 times a second. Not printed by `--events json`.
    Level {
        /// Time still to record, in milliseconds.
        remaining_ms: u64,
        /// The loudest sample since the last report, in dB below full scale (0 is full scale, −100 the least).
        peak_db: f32,
    },
    /// The recording was dropped; nothing is sent.
    Cancelled,
    /// The clip is first played at the announcer: the operator then sends or drops it.
    Reviewing {
        /// The id that the clip will have.
        clip: String,
        /// Its length in milliseconds.
        length_ms: u64,
        /// The loudspeaker's name.
        monitor: String,
    },
    /// A clip is recorded and sealed.
    Recorded {
        /// The clip's id.
        clip: String,
        /// Its length in milliseconds.
        length_ms: u64,
        /// The sample rate in Hz.
        rate_hz: u32,
        /// The WAV's size in bytes, header included.
        bytes: u64,
        /// SHA-256 of the WAV, in hex.
        sha256: String,
        /// Its loudest sample, in dB below full scale (−100 for pure silence).
        peak_db: f32,
        /// Its loudness in LUFS (EBU R 128); none for silence.
        loudness_lufs: Option<f32>,
        /// How much louder than recorded the words were made, in dB.
        gain_db: f32,
        /// The microphone's name, or `file:PATH`.
        input: String,
        /// How urgent it is.
        priority: Priority,
        /// What the microphone lost, where the clip is silent instead; usually nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        lost: Option<Lost>,
    },
    /// How urgent the next announcement is; emitted when the operator changes it, and when it reverts after an
    /// announcement.
    Priority {
        /// The priority from now on.
        priority: Priority,
    },
    /// Which zones there are, and which of them are addressed; emitted when either changes.
    Zones {
        /// Every zone: first those with digits, from 1, and then all others in natural order.
        known: Vec<String>,
        /// The zones that are addressed; none means every station.
        addressed: Vec<String>,
    },
    /// A station was sent the volume to play at from now on.
    Volume {
        /// The station's name.
        station: String,
        /// In dB, where 0 is as loud as the clip was sent; none means the station's own volume.
        volume_db: Option<f64>,
    },
    /// A clip is being sent.
    Sending {
        /// The clip's id.
        clip: String,
        /// The stations that should play it.
        stations: Vec<String>,
    },
    /// The progress of a clip that takes long to send, some four times a second.
    Progress {
        /// The clip's id.
        clip: String,
        /// Bytes handed to the network so far, to all stations together.
        sent_bytes: u64,
        /// Bytes to send in all.
        total_bytes: u64,
        /// Stations that have the whole clip.
        verified: usize,
        /// Stations that it is being sent to, or was.
        stations: usize,
        /// The time until all have it at the speed so far, in milliseconds.
        left_ms: u64,
    },
    /// A station has the whole clip, and its hash is right.
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
    /// Another page goes first at a station: the clip is played there, from its start, afterwards.
    Queued {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
        /// Whether it had begun, and was cut off.
        interrupted: bool,
    },
    /// A station played the clip to its last sample.
    Played {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
        /// [`Outcome::Played`] or [`Outcome::PlayedLate`].
        outcome: Outcome,
        /// An earlier attempt was interrupted after it had begun: the start of the clip was heard before.
        again: bool,
        /// Frames played, at the clip's rate.
        frames: u64,
        /// How much later than the agreed instant it began, in milliseconds; 0 when in step.
        late_ms: u64,
        /// How far its first sample was from its assigned instant, in µs, as the station measured it; later is positive.
        start_error_us: i64,
        /// The farthest that it was out of step while it played, in µs, as the station measured it.
        max_error_us: u64,
        /// How often the sound device ran dry while playing.
        underruns: u32,
        /// How far the station's notion of the instant may be off, in µs, as the station knows it; [`u32::MAX`] if it
        /// does not know.
        uncertainty_us: u32,
        /// The farthest that it was from the page's instant, or out of step while it played, in µs; later is positive.
        /// See [`is_in_step`].
        off_us: i64,
    },
    /// Somebody starts to speak live, and is heard while speaking.
    LiveStarted {
        /// Its id, numbered in one sequence with clips.
        clip: String,
        /// The microphone's name, or `file:PATH`.
        input: String,
        /// The sample rate in Hz.
        rate_hz: u32,
        /// The delay between speaking and hearing, in milliseconds.
        latency_ms: u64,
        /// How urgent it is.
        priority: Priority,
        /// The stations that should hear it.
        stations: Vec<String>,
    },
    /// Live speech has ended.
    LiveEnded {
        /// Its id.
        clip: String,
        /// How long it was, in milliseconds.
        length_ms: u64,
        /// Its blocks of 20 ms, the last one perhaps shorter.
        blocks: u32,
        /// SHA-256 of its samples as they were sent, in hex.
        sha256: String,
        /// Its loudest sample, in dB below full scale (−100 for pure silence).
        peak_db: f32,
        /// What the microphone lost; usually nothing.
        #[serde(skip_serializing_if = "Option::is_none")]
        lost: Option<Lost>,
    },
    /// What a station heard of live speech, once that is over.
    LivePlayed {
        /// Its id.
        clip: String,
        /// The station's name.
        station: String,
        /// [`Outcome::Played`], or [`Outcome::Interrupted`] or [`Outcome::Missed`] if too much is missing.
        outcome: Outcome,
        /// The number of its blocks.
        blocks: u32,
        /// Blocks that sounded whole and on time.
        played: u32,
        /// Blocks that did not: sent before it joined, lost, or late.
        concealed: u32,
        /// Of those, blocks that arrived too late.
        late: u32,
        /// How far its first sample was from its assigned instant, in µs, as the station measured it; later is positive.
        start_error_us: i64,
        /// The farthest that it was out of step while it sounded, in µs, as the station measured it.
        max_error_us: u64,
        /// How often the sound device ran dry meanwhile.
        underruns: u32,
        /// How far the station's notion of the instant may be off, in µs, as the station knows it; [`u32::MAX`] if it
        /// does not know.
        uncertainty_us: u32,
        /// The farthest that it was out of step, in µs; later is positive. See [`is_in_step`].
        off_us: i64,
    },
    /// A station did not play the clip to the end, and will not.
    Failed {
        /// The clip's id.
        clip: String,
        /// The station's name.
        station: String,
        /// [`Outcome::Interrupted`], [`Outcome::Rejected`] or [`Outcome::Missed`].
        outcome: Outcome,
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
        /// The stations that did not, and why.
        missing: Vec<Missing>,
        /// The time between the first and the last station to begin, in µs, by the start errors that they measured;
        /// only for stations in step, if there are at least two.
        spread_us: Option<u64>,
        /// How far the spread may be off, in µs: the sum of the two largest uncertainties.
        uncertainty_us: Option<u64>,
        /// The stations that played it, but too far from the others to sound as one.
        out_of_step: Vec<OutOfStep>,
        /// For live speech: the stations that did not hear all of it.
        concealed: Vec<Concealed>,
    },
    /// A station has found its announcer.
    Connected {
        /// The announcer's address as dialled.
        announcer: String,
    },
    /// A station waits for its announcer; emitted once per outage, not at every attempt.
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
    /// A station talks back to an announcer.
    TalkbackSending {
        /// The talkback's id.
        talkback: String,
        /// The station's name.
        station: String,
        /// The announcer's address as dialled.
        announcer: String,
        /// Its length in milliseconds.
        length_ms: u64,
        /// SHA-256 of the WAV, in hex.
        sha256: String,
    },
    /// A talkback has reached the announcer whole, just as its station said it.
    TalkbackReceived {
        /// The talkback's id.
        talkback: String,
        /// The station's name.
        station: String,
        /// Its length in milliseconds.
        length_ms: u64,
        /// SHA-256 of the WAV, in hex.
        sha256: String,
        /// Where it is kept; none if it cannot be kept.
        file: Option<PathBuf>,
    },
    /// A talkback was heard: the announcer's loudspeaker played it to its last sample.
    TalkbackHeard {
        /// The talkback's id.
        talkback: String,
        /// The station's name.
        station: String,
    },
    /// A talkback was kept, but could not be heard.
    TalkbackKept {
        /// The talkback's id.
        talkback: String,
        /// The station's name.
        station: String,
        /// Why, in words.
        reason: String,
    },
    /// A talkback was, as far as this program knows, neither heard nor kept.
    TalkbackRefused {
        /// The talkback's id.
        talkback: String,
        /// The station's name.
        station: String,
        /// Why, in words.
        reason: String,
    },
}

/// What became of a page at one station: final, and reported once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Played to its last sample, with the others.
    Played,
    /// Played to its last sample, after the others or after the verdict.
    PlayedLate,
    /// Begun, but not played to the end.
    Interrupted,
    /// The station refused it; nothing was heard.
    Rejected,
    /// The station was away or not free until it expired; nothing was heard.
    Missed,
}

/// A station that begins this long after its instant, or later, counts as late.
const LATE: Duration = Duration::from_millis(100);

impl Outcome {
    /// The outcome of a clip that was played to the end and began this long after it was due.
    pub fn played(behind: Duration) -> Self {
        if behind >= LATE { Self::PlayedLate } else { Self::Played }
    }

    /// Whether it was heard to the end.
    pub fn is_played(self) -> bool {
        matches!(self, Self::Played | Self::PlayedLate)
    }

    /// The outcome in one word, or two.
    pub fn words(self) -> &'static str {
        match self {
            Self::Played => "played",
            Self::PlayedLate => "played late",
            Self::Interrupted => "interrupted",
            Self::Rejected => "rejected",
            Self::Missed => "missed",
        }
    }
}

/// A station that should have played a clip and did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The station's name.
    pub station: String,
    /// Why, in words.
    pub reason: String,
}

/// A station that did not hear all of live speech.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Concealed {
    /// The station's name.
    pub station: String,
    /// Blocks that did not sound.
    pub concealed: u32,
    /// The number of blocks in all.
    pub blocks: u32,
}

/// A station that played a clip out of step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutOfStep {
    /// The station's name.
    pub station: String,
    /// The farthest that it was from the page's instant, or out of step while it played, in µs; later is positive.
    pub off_us: i64,
    /// How far the station's notion of the instant may be off, in µs; [`u32::MAX`] if it does not know.
    pub uncertainty_us: u32,
}

/// Live speech counts as heard if at most one block in this many was concealed: what is missing is short, and reported.
pub const CONCEALED_ONE_IN: u32 = 20;

/// The event for a station's receipt for live speech.
pub fn live_played(receipt: &LiveReceipt, station: String) -> Event {
    let LiveReceipt { clip, played, concealed, late, .. } = *receipt;
    let blocks = played.saturating_add(concealed);
    let outcome = match played {
        0 => Outcome::Missed,
        _ if concealed.saturating_mul(CONCEALED_ONE_IN) > blocks => Outcome::Interrupted,
        _ => Outcome::Played,
    };
    Event::LivePlayed {
        clip: clip.to_string(),
        station,
        outcome,
        blocks,
        played,
        concealed,
        late,
        start_error_us: receipt.start_error_us,
        max_error_us: receipt.max_error_us,
        underruns: receipt.underruns,
        uncertainty_us: receipt.uncertainty_us,
        off_us: worst_off_us(receipt.start_error_us, receipt.max_error_us),
    }
}

/// Two loudspeakers closer together than this sound as one (Haas, 1949), in µs.
pub const IN_STEP_US: u64 = 10_000;

/// Whether a station was certainly in step.
pub fn is_in_step(off_us: i64, uncertainty_us: u32) -> bool {
    off_us.unsigned_abs().saturating_add(uncertainty_us.into()) <= IN_STEP_US
}

/// The farthest that a station was out of step, in µs: at its start, or while it played.
pub fn worst_off_us(start_us: i64, max_error_us: u64) -> i64 {
    if start_us.unsigned_abs() >= max_error_us { start_us } else { max_error_us.min(i64::MAX as u64) as i64 }
}

/// A request from the operator to the announcer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Record a clip and send it.
    Announce,
    /// Send a sound file.
    AnnounceFile(PathBuf),
    /// Finish the current recording, and send what there is.
    Finish,
    /// Send the clip that was played for review.
    Send,
    /// Drop the current recording, or the clip that was played for review.
    Cancel,
    /// Start live speech, or finish it.
    Live,
    /// Make the next announcement an emergency, or undo that.
    Emergency,
    /// Address one zone from now on; `None` means every station.
    Address(Option<String>),
    /// Wait for the last verdict and exit.
    Leave,
}
