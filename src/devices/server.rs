//! What PulseAudio, or PipeWire in its place, reports about its devices and our streams.

use std::ffi::CStr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pulseaudio::protocol::{self, ChannelMap, ChannelVolume, Volume};
use pulseaudio::{Client, ClientError, StreamId};

use super::Direction;
use super::route::{Device, Kind, LOW_DB, Level, Snapshot, Step, Stream, Way};

/// The longest that the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// What identifies the null sinks of PulseAudio and of PipeWire, and the name of the one that either creates for lack of a
/// device.
const NULL_DRIVER: &CStr = c"module-null-sink.c";
const NULL_FACTORY: &[u8] = b"support.null-audio-sink";
const DUMMY: &[u8] = b"auto_null";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error("the sound server does not answer")]
    Silent,
    #[error(transparent)]
    Client(#[from] ClientError),
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer, but not forever.
fn ask<T>(answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ServerError> {
    let mut answer = pin!(answer);
    let waker = Arc::new(Unpark(thread::current())).into();
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(result) = answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(result?);
        }
        let left = give_up.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ServerError::Silent);
        }
        thread::park_timeout(left);
    }
}

/// Returns everything that is there now, over any connection of this process; `None` if no connection is up.
pub(crate) fn snapshot(direction: Direction) -> Option<Snapshot> {
    ask(take(Client::connected()?, direction)).ok()
}

async fn take(client: Client, direction: Direction) -> Result<Snapshot, ClientError> {
    let server = client.server_info().await?;
    Ok(match direction {
        Direction::Output => Snapshot {
            devices: client.list_sinks().await?.iter().map(sink).collect(),
            streams: client.list_sink_inputs().await?.iter().map(sink_input).collect(),
            default: server.default_sink_name.as_deref().map(text),
        },
        Direction::Input => Snapshot {
            devices: client.list_sources().await?.iter().map(source).collect(),
            streams: client.list_source_outputs().await?.iter().map(source_output).collect(),
            default: server.default_source_name.as_deref().map(text),
        },
    })
}

fn text(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

fn level(is_muted: bool, map: &ChannelMap, volume: &ChannelVolume) -> Level {
    let db = |volume: &Volume| if *volume == Volume::MUTED { f32::NEG_INFINITY } else { volume.to_db() };
    let channels = map.into_iter().zip(volume.channels());
    Level { is_muted, channels: channels.map(|(position, volume)| (position as u8, db(volume))).collect() }
}

fn sink(info: &protocol::SinkInfo) -> Device {
    let is_null = info.driver.as_deref() == Some(NULL_DRIVER)
        || info.props.get_bytes(c"factory.name").is_some_and(|it| it.starts_with(NULL_FACTORY));
    let kind = match info.name.as_bytes() {
        DUMMY => Kind::Dummy,
        _ if is_null => Kind::Null,
        _ => Kind::Real,
    };
    Device {
        index: info.index,
        name: text(&info.name),
        label: text(info.description.as_ref().unwrap_or(&info.name)),
        kind,
        module: info.owner_module_index,
        level: level(info.muted, &info.channel_map, &info.cvolume),
        is_flat: info.flags.contains(protocol::SinkFlags::FLAT_VOLUME),
    }
}

fn source(info: &protocol::SourceInfo) -> Device {
    let is_monitor = info.monitor_of_sink_index.is_some();
    Device {
        index: info.index,
        name: text(&info.name),
        label: text(info.description.as_ref().unwrap_or(&info.name)),
        kind: if is_monitor { Kind::Monitor } else { Kind::Real },
        // The module that made the sink has streams, but they do not record from its monitor.
        module: info.owner_module_index.filter(|_| !is_monitor),
        level: level(info.muted, &info.channel_map, &info.cvolume),
        is_flat: false,
    }
}

fn sink_input(info: &protocol::SinkInputInfo) -> Stream {
    Stream {
        index: info.index,
        device: info.sink_index,
        module: info.owner_module_index,
        level: level(info.muted, &info.channel_map, &info.cvolume),
    }
}

fn source_output(info: &protocol::SourceOutputInfo) -> Stream {
    Stream {
        index: info.index,
        device: info.source_index,
        module: info.owner_module_index,
        level: level(info.muted, &info.channel_map, &info.cvolume),
    }
}

/// What a look at the server shows.
pub(crate) enum Sight {
    /// Everything that is there, and the stream's way; no way if the server no longer knows the stream.
    Clear(Snapshot, Option<Way>),
    /// The stream is there, but on no device.
    Adrift,
}

/// The server's view of one of our streams, for as long as the stream is open.
pub(crate) struct View {
    stream: StreamId,
    direction: Direction,
    client: Client,
    changes: Arc<AtomicU64>,
    seen: Option<u64>,
}

impl View {
    /// Creates the view of a stream; the calling thread is unparked when something changes. `None` while the stream's connection
    /// is not up.
    pub(crate) fn of(stream: StreamId, direction: Direction) -> Option<Self> {
        let client = stream.client()?;
        let changes = ask(client.observe(thread::current())).ok()?;
        Some(Self { stream, direction, client, changes, seen: None })
    }

    /// Whether something might have changed since the last look.
    pub(crate) fn has_changed(&self) -> bool {
        self.seen != Some(self.changes.load(Ordering::Acquire))
    }

    /// Returns what the server knows now.
    ///
    /// # Errors
    /// The server does not answer, or its answer cannot be understood; in the second case, it is asked again when something
    /// changes.
    pub(crate) fn look(&mut self) -> Result<Sight, ServerError> {
        let changes = self.changes.load(Ordering::Acquire);
        let taken = ask(take(self.client.clone(), self.direction));
        if !matches!(taken, Err(ServerError::Silent)) {
            self.seen = Some(changes);
        }
        let (snapshot, index) = (taken?, self.stream.index());
        let way = snapshot.way(index);
        let is_known = snapshot.streams.iter().any(|stream| stream.index == index);
        Ok(if is_known && way.is_none() { Sight::Adrift } else { Sight::Clear(snapshot, way) })
    }

    /// Unmutes every step of the way of a stream that plays, and turns up what was turned down if too little gets through.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub(crate) fn open_up(&self) -> Result<(), ServerError> {
        let snapshot = ask(take(self.client.clone(), self.direction))?;
        let Some(way) = snapshot.way(self.stream.index()) else { return Ok(()) };
        let is_low = way.gain_db() < LOW_DB;
        for step in &way.steps {
            if step.is_muted {
                ask(self.unmute(step))?;
            }
            if is_low && (step.db < LOW_DB || Some(step) == way.quietest()) {
                ask(self.turn_up(step))?;
            }
        }
        Ok(())
    }

    async fn unmute(&self, step: &Step) -> Result<(), ClientError> {
        match step.is_stream {
            true => self.client.set_sink_input_mute(step.index, false).await,
            false => self.client.set_sink_mute(step.index, false).await,
        }
    }

    async fn turn_up(&self, step: &Step) -> Result<(), ClientError> {
        let channels = u8::try_from(step.channels).unwrap_or(1).clamp(1, protocol::sample_spec::MAX_CHANNELS);
        let volume = ChannelVolume::norm(channels);
        match step.is_stream {
            true => self.client.set_sink_input_volume(step.index, volume).await,
            false => self.client.set_sink_volume(step.index, volume).await,
        }
    }
}
