use std::{
    collections::BTreeMap,
    io::{self},
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{self, AtomicU32, AtomicU64},
        mpsc::{Receiver, Sender, TryRecvError},
    },
    task::{Context, Poll},
    thread::JoinHandle,
};

use futures::channel::oneshot;
use mio::net::UnixStream;

use crate::protocol::{self, DescriptorFlags};

use super::{ClientError, PlaybackSource, RecordSink, watch};

type ReplyResult<'a> =
    Result<(&'a mut ReactorState, &'a mut dyn io::BufRead), protocol::PulseError>;
type ReplyHandler = Box<dyn FnOnce(ReplyResult<'_>) + Send + 'static>;

struct PlaybackStreamState {
    stream_info: protocol::CreatePlaybackStreamReply,
    source: Pin<Box<dyn PlaybackSource>>,

    requested_bytes: usize,
    done: bool,
    eof_notify: Option<oneshot::Sender<()>>,

    moved: Arc<Moved>,

    /// Questions that go out behind a block.
    behind_block: Vec<(u32, protocol::Command)>,
    /// Times that the server found nothing to play.
    underflows: u32,
    /// Blocks since the last question, and blocks of silence at a stretch.
    unasked_blocks: u32,
    silent_blocks: u32,
}

thread_local! {
    /// Of the stream whose source is being read.
    static UNDERFLOWS: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// How often the server found nothing to play in a playback stream since it was created; asked by the stream's source
/// while it is read. `None` elsewhere.
pub fn underflows() -> Option<u32> {
    UNDERFLOWS.get()
}

/// How many blocks of silence there are before questions become rare: some seconds.
const LONG_SILENCE_BLOCKS: u32 = 1_000;
/// How many blocks of a long silence there are from one question to the next.
const SILENT_BLOCKS_A_QUESTION: u32 = 4;

impl PlaybackStreamState {
    /// Whether questions go out behind this block, which was just written.
    fn asks_behind(&mut self, block: &[u8]) -> bool {
        let is_silent = block.iter().all(|byte| Some(byte) == block.first());
        self.silent_blocks = if is_silent { self.silent_blocks.saturating_add(1) } else { 0 };
        self.unasked_blocks = self.unasked_blocks.saturating_add(1);
        let asks = self.silent_blocks < LONG_SILENCE_BLOCKS
            || self.unasked_blocks >= SILENT_BLOCKS_A_QUESTION;
        if asks && !self.behind_block.is_empty() {
            self.unasked_blocks = 0;
        }
        asks
    }
}

pub(super) struct RecordStreamState {
    stream_index: u32,
    sink: Box<dyn RecordSink>,
    start_notify: Option<oneshot::Sender<()>>,
    moved: Arc<Moved>,
}

/// How far a stream has come since the moment that the last answer speaks of.
#[derive(Debug, Default)]
pub(super) struct Moved {
    bytes: AtomicU64,
    answered: AtomicU64,
}

impl Moved {
    fn by(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, atomic::Ordering::Relaxed);
    }

    pub(super) fn is_answered_for(&self) {
        let now = self.bytes.load(atomic::Ordering::Relaxed);
        self.answered.store(now, atomic::Ordering::Relaxed);
    }

    /// Bytes handed to the server, or taken from it, that the last answer knows nothing of.
    pub(super) fn since_answer(&self) -> i64 {
        let answered = self.answered.load(atomic::Ordering::Relaxed);
        self.bytes.load(atomic::Ordering::Relaxed).saturating_sub(answered) as i64
    }
}


#[derive(Default)]
pub(super) struct ReactorState {
    handlers: BTreeMap<u32, ReplyHandler>,
    playback_streams: BTreeMap<u32, PlaybackStreamState>,
    record_streams: BTreeMap<u32, RecordStreamState>,
    pub(super) observer: Option<watch::Observer>,
}

impl ReactorState {
    /// Forgets a stream that the server has ended: whoever waits for it is told that it is disconnected.
    fn end_playback_stream(&mut self, channel: u32) {
        if let Some(stream) = self.playback_streams.remove(&channel) {
            for (seq, _) in stream.behind_block {
                self.handlers.remove(&seq);
            }
        }
    }
}

struct SharedState {
    serial: u32,
    protocol_version: u16,
    next_seq: AtomicU32,
    _thread_handle: JoinHandle<super::Result<()>>,
}

// We need to wrap this to implement futures::task::ArcWake.
struct Waker(mio::Waker);

impl futures::task::ArcWake for Waker {
    fn wake_by_ref(arc_self: &Arc<Self>) {
        let _ = arc_self.0.wake();
    }
}

#[derive(Clone)]
pub(super) struct ReactorHandle {
    state: Weak<Mutex<ReactorState>>,
    shared: Arc<SharedState>,
    outgoing: Sender<(u32, protocol::Command)>,
    waker: Arc<Waker>,
}

impl ReactorHandle {
    pub(super) async fn roundtrip_reply<R: protocol::CommandReply + Send + 'static>(
        &self,
        cmd: protocol::Command,
    ) -> Result<R, ClientError> {
        self.roundtrip_reply_noted(cmd, || ()).await
    }

    /// The same, with something to be done in the moment of the answer, before anything that comes behind it.
    pub(super) async fn roundtrip_reply_noted<R: protocol::CommandReply + Send + 'static>(
        &self,
        cmd: protocol::Command,
        answered: impl FnOnce() + Send + 'static,
    ) -> Result<R, ClientError> {
        let seq = self.next_seq();

        // Install a handler for the sequence number.
        let (tx, rx) = oneshot::channel();
        let protocol_version = self.shared.protocol_version;
        self.install_handler(seq, move |res: ReplyResult<'_>| {
            answered();
            let _ = match res {
                Ok((_, buf)) => tx.send(read_tagstruct(buf, protocol_version)),
                Err(err) => tx.send(Err(ClientError::ServerError(err))),
            };
        })?;

        // Send the message.
        self.write_command(seq, cmd)?;

        // Wait for the response.
        rx.await.map_err(|_| ClientError::Disconnected)?
    }

    /// The same as [`Self::roundtrip_reply`], but the command goes out behind the stream's next block (in a long
    /// silence, not behind every one), so that nobody is woken only to send it; and when the stream is deleted.
    pub(super) async fn roundtrip_reply_behind_block<R: protocol::CommandReply + Send + 'static>(
        &self,
        channel: u32,
        cmd: protocol::Command,
    ) -> Result<R, ClientError> {
        let seq = self.next_seq();
        let (tx, rx) = oneshot::channel();
        let protocol_version = self.shared.protocol_version;
        {
            let state = self.state.upgrade().ok_or(ClientError::Disconnected)?;
            let mut state = state.lock().unwrap();
            let stream = state.playback_streams.get_mut(&channel);
            stream.ok_or(ClientError::Disconnected)?.behind_block.push((seq, cmd));
            let handler = move |res: ReplyResult<'_>| {
                let _ = match res {
                    Ok((_, buf)) => tx.send(read_tagstruct(buf, protocol_version)),
                    Err(err) => tx.send(Err(ClientError::ServerError(err))),
                };
            };
            state.handlers.insert(seq, Box::new(handler));
        }
        rx.await.map_err(|_| ClientError::Disconnected)?
    }

    /// Sends what waits for a block that may never come.
    fn send_waiting(&self, channel: u32) -> Result<(), ClientError> {
        let state = self.state.upgrade().ok_or(ClientError::Disconnected)?;
        let mut state = state.lock().unwrap();
        if let Some(stream) = state.playback_streams.get_mut(&channel) {
            for (seq, cmd) in stream.behind_block.drain(..) {
                self.write_command(seq, cmd)?;
            }
        }
        Ok(())
    }

    pub(super) async fn roundtrip_ack(&self, cmd: protocol::Command) -> Result<(), ClientError> {
        let seq = self.next_seq();

        // Install a handler for the sequence number.
        let (tx, rx) = oneshot::channel();
        self.install_handler(seq, move |res: ReplyResult<'_>| {
            let _ = match res {
                Ok(_) => tx.send(Ok(())),
                Err(err) => tx.send(Err(ClientError::ServerError(err))),
            };
        })?;

        // Send the message.
        self.write_command(seq, cmd)?;

        // Wait for the response.
        rx.await.map_err(|_| ClientError::Disconnected)?
    }

    pub(super) async fn insert_playback_stream(
        &self,
        params: protocol::PlaybackStreamParams,
        source: impl PlaybackSource,
        eof_notify: Option<oneshot::Sender<()>>,
        moved: Arc<Moved>,
    ) -> Result<protocol::CreatePlaybackStreamReply, ClientError> {
        // This is the seq for the CreatePlaybackStream command.
        let seq = self.next_seq();

        let protocol_version = self.shared.protocol_version;
        let handler = move |res: ReplyResult<'_>| {
            let (state, buf) = res.map_err(ClientError::ServerError)?;
            let stream_info: protocol::CreatePlaybackStreamReply =
                read_tagstruct(buf, protocol_version)?;

            let requested_bytes = stream_info.requested_bytes as usize;
            state.playback_streams.insert(
                stream_info.channel,
                PlaybackStreamState {
                    stream_info: stream_info.clone(),
                    source: Box::pin(source),

                    requested_bytes,
                    done: false,
                    eof_notify,

                    moved,
                    behind_block: Vec::new(),
                    underflows: 0,
                    unasked_blocks: 0,
                    silent_blocks: 0,
                },
            );

            Ok(stream_info)
        };

        let (tx, rx) = oneshot::channel();
        self.install_handler(seq, move |res: ReplyResult<'_>| {
            let _ = tx.send(handler(res));
        })?;

        // Send the message.
        self.write_command(seq, protocol::Command::CreatePlaybackStream(params))?;

        // Wait for the response.
        rx.await.map_err(|_| ClientError::Disconnected)?
    }

    pub(super) async fn delete_playback_stream(&self, channel: u32) -> Result<(), ClientError> {
        self.send_waiting(channel)?;
        let seq = self.next_seq();

        let (tx, rx) = oneshot::channel();
        self.install_handler(seq, move |res| {
            if let Ok((state, _ack)) = res {
                state.playback_streams.remove(&channel);
            }

            let _ = tx.send(());
        })?;

        self.write_command(seq, protocol::Command::DeletePlaybackStream(channel))?;
        rx.await.map_err(|_| ClientError::Disconnected)
    }

    pub(super) fn mark_playback_stream_draining(&self, channel: u32) {
        if let Some(state) = self.state.upgrade()
            && let Some(stream) = state.lock().unwrap().playback_streams.get_mut(&channel)
        {
            stream.done = true;
        }
    }

    pub(super) async fn insert_record_stream(
        &self,
        params: protocol::RecordStreamParams,
        sink: impl RecordSink,
        start_notify: Option<oneshot::Sender<()>>,
        moved: Arc<Moved>,
    ) -> Result<protocol::CreateRecordStreamReply, ClientError> {
        let seq = self.next_seq();

        let protocol_version = self.shared.protocol_version;
        let handler = move |res: ReplyResult<'_>| {
            let (state, buf) = res.map_err(ClientError::ServerError)?;
            let stream_info: protocol::CreateRecordStreamReply =
                read_tagstruct(buf, protocol_version)?;

            state.record_streams.insert(
                stream_info.channel,
                RecordStreamState {
                    stream_index: stream_info.stream_index,
                    sink: Box::new(sink),
                    start_notify,
                    moved,
                },
            );

            Ok(stream_info)
        };

        let (tx, rx) = oneshot::channel();
        self.install_handler(seq, move |res: ReplyResult<'_>| {
            let _ = tx.send(handler(res));
        })?;

        // Send the message.
        self.write_command(seq, protocol::Command::CreateRecordStream(params))?;

        // Wait for the response.
        rx.await.map_err(|_| ClientError::Disconnected)?
    }

    pub(super) async fn delete_record_stream(&self, channel: u32) -> Result<(), ClientError> {
        let seq = self.next_seq();

        let (tx, rx) = oneshot::channel();
        self.install_handler(seq, move |res| {
            if let Ok((state, _ack)) = res {
                state.record_streams.remove(&channel);
            }

            let _ = tx.send(());
        })?;

        self.write_command(seq, protocol::Command::DeleteRecordStream(channel))?;
        rx.await.map_err(|_| ClientError::Disconnected)
    }

    pub(super) fn serial(&self) -> u32 {
        self.shared.serial
    }

    /// Has an observer told of what changes on the server.
    pub(super) fn observe(&self, observer: watch::Observer) -> Result<(), ClientError> {
        let state = self.state.upgrade().ok_or(ClientError::Disconnected)?;
        state.lock().unwrap().observer = Some(observer);
        Ok(())
    }

    fn write_command(&self, seq: u32, cmd: protocol::Command) -> Result<(), ClientError> {
        self.outgoing
            .send((seq, cmd))
            .map_err(|_| ClientError::Disconnected)?;
        self.waker.0.wake()?;

        Ok(())
    }

    fn install_handler<F>(&self, seq: u32, handler: F) -> Result<(), ClientError>
    where
        F: FnOnce(ReplyResult<'_>) + Send + 'static,
    {
        self.state
            .upgrade()
            .ok_or(ClientError::Disconnected)?
            .lock()
            .unwrap()
            .handlers
            .insert(seq, Box::new(handler));

        Ok(())
    }

    fn next_seq(&self) -> u32 {
        self.shared.next_seq.fetch_add(1, atomic::Ordering::Relaxed)
    }
}

/// What one read takes at most.
const READ_BLOCK_BYTES: usize = 64 * 1024;

pub(super) const WAKER: mio::Token = mio::Token(0);
pub(super) const SOCKET: mio::Token = mio::Token(1);

pub(super) struct Reactor {
    socket: UnixStream,
    awaits_room: bool,
    poll: mio::Poll,
    waker: Arc<Waker>,
    serial: u32,
    state: Arc<Mutex<ReactorState>>,
    outgoing: Receiver<(u32, protocol::Command)>,
    protocol_version: u16,

    write_buf: Vec<u8>,
    read_block: Box<[u8]>,
    read_buf: Vec<u8>,
    in_progress_read: Option<protocol::Descriptor>,
}

impl Reactor {
    pub(super) fn spawn(
        mut socket: UnixStream,
        protocol_version: u16,
    ) -> Result<ReactorHandle, ClientError> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(Waker(mio::Waker::new(poll.registry(), WAKER)?));
        poll.registry()
            .register(&mut socket, SOCKET, mio::Interest::READABLE)?;

        let state = Arc::new(Mutex::new(ReactorState::default()));

        let (cmd_tx, cmd_rx) = std::sync::mpsc::channel();
        let serial = watch::next_serial();
        let mut reactor = Self {
            socket,
            awaits_room: false,
            poll,
            waker: waker.clone(),
            serial,
            state: state.clone(),
            outgoing: cmd_rx,
            protocol_version,

            write_buf: Vec::new(),
            read_block: vec![0; READ_BLOCK_BYTES].into(),
            read_buf: Vec::new(),
            in_progress_read: None,
        };

        let reactor_thread = std::thread::spawn(move || {
            let ended = reactor.run();
            watch::remove(serial);
            if let Err(err) = &ended {
                log::error!("Reactor error: {err}");
            }
            ended
        });

        Ok(ReactorHandle {
            state: Arc::downgrade(&state),
            outgoing: cmd_tx,
            waker,
            shared: Arc::new(SharedState {
                serial,
                protocol_version,
                next_seq: AtomicU32::new(1024),
                _thread_handle: reactor_thread,
            }),
        })
    }

    pub(super) fn run(&mut self) -> Result<(), ClientError> {
        let mut events = mio::Events::with_capacity(1024);

        loop {
            match self.poll.poll(&mut events, None) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.recv()?;

            // Handle any requested writes.
            self.write_streams()?;
            self.write_commands()?;
            self.await_room()?;
        }
    }

    /// Asks to be woken when the socket takes more, but only while there is something to write.
    fn await_room(&mut self) -> Result<(), ClientError> {
        let awaits_room = !self.write_buf.is_empty();
        if awaits_room != self.awaits_room {
            let interest = if awaits_room {
                mio::Interest::READABLE | mio::Interest::WRITABLE
            } else {
                mio::Interest::READABLE
            };
            self.poll
                .registry()
                .reregister(&mut self.socket, SOCKET, interest)?;
            self.awaits_room = awaits_room;
        }
        Ok(())
    }

    fn recv(&mut self) -> Result<(), ClientError> {
        use io::Read;

        let mut is_drained = false;
        'read: loop {
            if is_drained {
                return Ok(());
            }
            match self.socket.read(&mut self.read_block) {
                Ok(0) => return Err(ClientError::Disconnected),
                Ok(n) => {
                    // Less than was asked for: there is no more, and epoll(7) says when there is.
                    is_drained = n < self.read_block.len();
                    self.read_buf.extend_from_slice(&self.read_block[..n]);
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue 'read,
                Err(err) => return Err(err.into()),
            };

            // Decode messages (there may be multiple).
            while !self.read_buf.is_empty() {
                // Continue the previous read, if it was unfinished.
                let desc = if let Some(desc) = self.in_progress_read.take() {
                    desc
                } else if self.read_buf.len() >= protocol::DESCRIPTOR_SIZE {
                    protocol::read_descriptor(&mut io::Cursor::new(&self.read_buf))?
                } else {
                    log::trace!("very short read ({} bytes)", self.read_buf.len());
                    continue 'read;
                };

                // If we don't have all the message, poll until we do.
                let len = desc.length as usize + protocol::DESCRIPTOR_SIZE;
                if self.read_buf.len() < len {
                    self.in_progress_read = Some(desc);
                    log::trace!("partial read ({}/{} bytes)", self.read_buf.len(), len);
                    continue 'read;
                }

                if desc.channel == u32::MAX {
                    self.handle_command(len);
                } else {
                    // Stream data for a record stream.
                    let mut guard = self.state.lock().unwrap();
                    if let Some(RecordStreamState {
                        stream_index,
                        sink,
                        start_notify,
                        moved,
                    }) = guard.record_streams.get_mut(&desc.channel)
                    {
                        log::trace!("reading {len} bytes from stream {}", desc.channel,);
                        if let Some(start_notify) = start_notify.take() {
                            let _ = start_notify.send(());
                        }

                        let _current = watch::Current::enter(self.serial, *stream_index);
                        sink.write(&self.read_buf[protocol::DESCRIPTOR_SIZE..len]);
                        moved.by(desc.length as usize);
                    } else {
                        log::warn!("Received data for unknown record stream {}", desc.channel);
                    }
                }

                self.read_buf.drain(..len);
            }
        }
    }

    fn handle_command(&mut self, len: usize) {
        let mut cursor = io::Cursor::new(&self.read_buf[protocol::DESCRIPTOR_SIZE..len]);
        let (seq, cmd) =
            match protocol::Command::read_tag_prefixed(&mut cursor, self.protocol_version) {
                Ok((seq, cmd)) => (seq, cmd),
                Err(err) => {
                    log::error!("failed to read command message: {err}");
                    return;
                }
            };

        let mut state = self.state.lock().unwrap();

        log::debug!("SERVER [{}]: {cmd:?}", seq as i32);
        if matches!(cmd, protocol::Command::Reply | protocol::Command::Error(_)) {
            let Some(handler) = state.handlers.remove(&seq) else {
                log::warn!("no reply handler found for sequence {seq}");
                return;
            };

            match cmd {
                protocol::Command::Reply => handler(Ok((&mut state, &mut cursor))),
                protocol::Command::Error(err) => handler(Err(err)),
                _ => unreachable!(),
            }
            return;
        }

        match cmd {
            protocol::Command::Started(channel) => {
                if state.playback_streams.contains_key(&channel) {
                    log::debug!("stream started: {channel}");
                } else {
                    log::error!("unknown stream: {channel}");
                }
            }
            protocol::Command::Request(protocol::Request { channel, length }) => {
                if let Some(stream) = state.playback_streams.get_mut(&channel) {
                    stream.requested_bytes += length as usize;
                } else {
                    log::error!("unknown stream: {channel}");
                }
            }
            protocol::Command::PlaybackStreamKilled(channel) => state.end_playback_stream(channel),
            protocol::Command::RecordStreamKilled(channel) => {
                state.record_streams.remove(&channel);
            }
            protocol::Command::SubscribeEvent(_)
            | protocol::Command::PlaybackStreamMoved(_)
            | protocol::Command::RecordStreamMoved(_) => {
                if let Some(observer) = &state.observer {
                    observer.tell();
                }
            }
            protocol::Command::Underflow(protocol::Underflow { channel, .. }) => {
                if let Some(stream) = state.playback_streams.get_mut(&channel) {
                    stream.underflows = stream.underflows.wrapping_add(1);
                }
            }
            _ => log::debug!("ignoring unexpected command: {cmd:?}"),
        }
    }

    fn write_commands(&mut self) -> Result<(), ClientError> {
        loop {
            // Drain the write buffer...
            if !drain_buf(&mut self.write_buf, &mut self.socket)? {
                return Ok(());
            }

            // ...and encode new command messages into it.
            match self.outgoing.try_recv() {
                Ok((seq, cmd)) => {
                    log::debug!("CLIENT [{seq}]: {cmd:?}");
                    protocol::encode_command_message(
                        &mut self.write_buf,
                        seq,
                        &cmd,
                        self.protocol_version,
                    )?;
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(ClientError::Disconnected),
            };
        }
    }

    fn write_streams(&mut self) -> Result<(), ClientError> {
        if !drain_buf(&mut self.write_buf, &mut self.socket)? {
            return Ok(());
        }

        let mut state = self.state.lock().unwrap();
        for stream in state.playback_streams.values_mut() {
            if stream.done {
                continue;
            }

            while stream.requested_bytes > 0 {
                let requested = stream.requested_bytes;

                self.write_buf
                    .resize(protocol::DESCRIPTOR_SIZE + requested, 0);

                let waker = futures::task::waker(self.waker.clone());
                let mut cx = Context::from_waker(&waker);
                let buf = &mut self.write_buf[protocol::DESCRIPTOR_SIZE..];
                UNDERFLOWS.set(Some(stream.underflows));
                let current = watch::Current::enter(self.serial, stream.stream_info.stream_index);
                let polled = PlaybackSource::poll_read(stream.source.as_mut(), &mut cx, buf);
                drop(current);
                let len = match polled {
                    Poll::Ready(0) => {
                        log::debug!(
                            "source for stream {} reached EOF",
                            stream.stream_info.channel
                        );

                        stream.done = true;
                        stream.eof_notify.take().map(|done| done.send(()));
                        self.write_buf.clear();
                        break;
                    }
                    Poll::Pending => {
                        self.write_buf.clear();
                        break;
                    }
                    Poll::Ready(n) => n,
                };

                let len = len.min(requested);
                if len == 0 {
                    log::debug!(
                        "callback for stream {} returned no data",
                        stream.stream_info.channel
                    );

                    self.write_buf.clear();
                    break;
                }

                log::trace!(
                    "writing {len} bytes to stream {} (requested {})",
                    stream.stream_info.channel,
                    stream.requested_bytes
                );

                self.write_buf.truncate(protocol::DESCRIPTOR_SIZE + len);
                stream.requested_bytes -= len;
                stream.moved.by(len);
                let asks = stream.asks_behind(&self.write_buf[protocol::DESCRIPTOR_SIZE..])
                    && !stream.behind_block.is_empty();

                let desc = protocol::Descriptor {
                    length: len as u32,
                    channel: stream.stream_info.channel,
                    offset: 0,
                    flags: DescriptorFlags::empty(),
                };

                protocol::encode_descriptor(
                    (&mut self.write_buf[..protocol::DESCRIPTOR_SIZE])
                        .try_into()
                        .unwrap(),
                    &desc,
                );
                if asks {
                    stream.moved.is_answered_for();
                    for (seq, cmd) in stream.behind_block.drain(..) {
                        let mut message = Vec::new();
                        protocol::encode_command_message(
                            &mut message,
                            seq,
                            &cmd,
                            self.protocol_version,
                        )?;
                        self.write_buf.extend_from_slice(&message);
                    }
                }

                if !drain_buf(&mut self.write_buf, &mut self.socket)? {
                    return Ok(());
                }
            }
        }

        Ok(())
    }
}

fn drain_buf(buf: &mut Vec<u8>, w: &mut impl io::Write) -> Result<bool, io::Error> {
    while !buf.is_empty() {
        match w.write(buf) {
            Ok(0) => return Ok(false),
            Ok(n) => buf.drain(..n),
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(err) => return Err(err),
        };
    }

    Ok(true)
}

fn read_tagstruct<R: protocol::CommandReply>(
    buf: &mut dyn io::BufRead,
    protocol_version: u16,
) -> Result<R, ClientError> {
    protocol::TagStructReader::new(buf, protocol_version)
        .read()
        .map_err(Into::into)
}
