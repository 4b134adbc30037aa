//! Lets a program that only has another library's streams monitor them: which stream a callback belongs to, the
//! connection behind it, what the server knows about both, and a notification when that changes.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::Thread,
};

use super::{Client, Result};
use crate::protocol;

/// The connections of this process that are up, by their serial numbers.
static CLIENTS: Mutex<BTreeMap<u32, Client>> = Mutex::new(BTreeMap::new());

pub(super) fn next_serial() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

pub(super) fn insert(client: &Client) {
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    clients.insert(client.handle.serial(), client.clone());
}

pub(super) fn remove(serial: u32) {
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    clients.remove(&serial);
}

thread_local! {
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Marks the stream whose callback runs on this thread, until it is dropped.
pub(super) struct Current;

impl Current {
    pub(super) fn enter(client: u32, stream: u32) -> Self {
        CURRENT.set(StreamId { client, stream }.to_bits());
        Self
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(0);
    }
}

/// A stream of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId {
    client: u32,
    stream: u32,
}

impl StreamId {
    /// The stream whose data callback the calling thread is in. Neither locks nor allocates.
    pub fn current() -> Option<Self> {
        Self::from_bits(CURRENT.get())
    }

    /// Returns the stream as a number that is never 0.
    pub fn to_bits(self) -> u64 {
        u64::from(self.client) << 32 | u64::from(self.stream)
    }

    /// Returns the stream from which [`Self::to_bits`] made `bits`; `None` for 0.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let (client, stream) = ((bits >> 32) as u32, bits as u32);
        (client != 0).then_some(Self { client, stream })
    }

    /// The server's index of the sink input or source output.
    pub fn index(self) -> u32 {
        self.stream
    }

    /// The connection that the stream belongs to, while it is up.
    pub fn client(self) -> Option<Client> {
        let clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(&self.client).cloned()
    }
}

/// A thread that is notified when something on the server has changed.
pub(super) struct Observer {
    changes: Arc<AtomicU64>,
    thread: Thread,
}

impl Observer {
    pub(super) fn tell(&self) {
        self.changes.fetch_add(1, Ordering::Release);
        self.thread.unpark();
    }
}

impl Client {
    /// Returns a connection of this process that is up, if there is one.
    pub fn connected() -> Option<Self> {
        let clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        clients.values().next_back().cloned()
    }

    /// From now on, counts how often a sink, a source, one of their streams, or the server itself changes, and unparks
    /// `thread` each time. Each connection has one such thread.
    pub async fn observe(&self, thread: Thread) -> Result<Arc<AtomicU64>> {
        let changes = Arc::new(AtomicU64::new(0));
        let observer = Observer { changes: changes.clone(), thread };
        self.handle.observe(observer)?;
        let mask = protocol::SubscriptionMask::SINK
            | protocol::SubscriptionMask::SOURCE
            | protocol::SubscriptionMask::SINK_INPUT
            | protocol::SubscriptionMask::SOURCE_OUTPUT
            | protocol::SubscriptionMask::SERVER;
        self.handle.roundtrip_ack(protocol::Command::Subscribe(mask)).await?;
        Ok(changes)
    }

    /// Fetches all playback streams.
    pub async fn list_sink_inputs(&self) -> Result<Vec<protocol::SinkInputInfo>> {
        self.handle.roundtrip_reply(protocol::Command::GetSinkInputInfoList).await
    }

    /// Fetches all recording streams.
    pub async fn list_source_outputs(&self) -> Result<Vec<protocol::SourceOutputInfo>> {
        self.handle.roundtrip_reply(protocol::Command::GetSourceOutputInfoList).await
    }

    /// Mutes or unmutes a sink.
    pub async fn set_sink_mute(&self, index: u32, mute: bool) -> Result<()> {
        let params = protocol::SetDeviceMuteParams { device_index: Some(index), device_name: None, mute };
        self.handle.roundtrip_ack(protocol::Command::SetSinkMute(params)).await
    }

    /// Mutes or unmutes a playback stream.
    pub async fn set_sink_input_mute(&self, index: u32, mute: bool) -> Result<()> {
        let params = protocol::SetStreamMuteParams { index, mute };
        self.handle.roundtrip_ack(protocol::Command::SetSinkInputMute(params)).await
    }

    /// Sets the volume of a sink.
    pub async fn set_sink_volume(&self, index: u32, volume: protocol::ChannelVolume) -> Result<()> {
        let params = protocol::SetDeviceVolumeParams { device_index: Some(index), device_name: None, volume };
        self.handle.roundtrip_ack(protocol::Command::SetSinkVolume(params)).await
    }

    /// Sets the volume of a playback stream.
    pub async fn set_sink_input_volume(&self, index: u32, volume: protocol::ChannelVolume) -> Result<()> {
        let params = protocol::SetStreamVolumeParams { index, volume };
        self.handle.roundtrip_ack(protocol::Command::SetSinkInputVolume(params)).await
    }
}
