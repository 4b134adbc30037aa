//! A network in memory, on simulated time: machines, the ways between them, and connections that behave as TCP
//! does when a way is cut, in one direction or both, when a process dies, and when the power fails.

mod socket;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use bullhorn::link::SILENCE_DEADLINE;
use bytes::BytesMut;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

pub use socket::{Listener, Stream, Uplink};

/// How much a socket's buffer holds before its writer must wait.
const WINDOW_BYTES: usize = 64 * 1024;
/// The longest pause before a segment that was lost is sent again.
const RETRANSMIT_MS: u64 = 1_000;
/// The time that a write takes on the way is counted in whole packets of this size.
const PACKET_BYTES: u64 = 256;
const PORT: u16 = 7766;

/// A machine's number; the announcer's is 0.
pub type Machine = usize;

/// The state of one direction between two machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    pub is_open: bool,
    pub delay: Duration,
    pub jitter: Duration,
    pub bytes_per_s: u64,
}

struct Way {
    weather: Weather,
    busy_until: Instant,
}

#[derive(Default)]
struct Host {
    is_on: bool,
    is_frozen: bool,
    boot: u32,
    next_port: u16,
    listener: Option<mpsc::UnboundedSender<(Stream, SocketAddr)>>,
    fuse: Option<Fuse>,
}

/// Crashes a machine in the middle of what it does.
#[derive(Debug, Clone, Copy)]
pub struct Fuse {
    /// The number of reads and writes of its sockets until then.
    pub touches: u32,
    /// Whether the last of them still takes place.
    pub after: bool,
    /// Whether the power goes, and not only the process.
    pub power: bool,
}

enum Item {
    Data(BytesMut),
    Fin,
    Reset,
}

type EndId = usize;

/// One end of a connection.
struct End {
    machine: Machine,
    boot: u32,
    peer: EndId,
    segment_bytes: usize,
    /// Each read returns the bytes of one write, so the length of a random number on the wire does not matter.
    incoming: VecDeque<BytesMut>,
    is_finished: bool,
    error: Option<io::ErrorKind>,
    outgoing: VecDeque<Item>,
    unacknowledged: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    news: Arc<Notify>,
    is_held: bool,
    is_frozen: bool,
    is_shut: bool,
}

impl End {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn fail(&mut self, error: io::ErrorKind) {
        self.error.get_or_insert(error);
        self.outgoing.clear();
        self.news.notify_one();
        self.wake();
    }
}

struct World {
    dice: fastrand::Rng,
    hosts: Vec<Host>,
    ways: BTreeMap<(Machine, Machine), Way>,
    ends: Vec<End>,
    changed: Arc<Notify>,
    crash: Box<dyn Fn(Machine, bool) + Send>,
}

/// The network. Cloning shares it.
#[derive(Clone)]
pub struct Net(Arc<Mutex<World>>);

impl Net {
    /// Creates machines that are all on and can all reach each other. `crash` is called at the very moment at which one
    /// crashes, with whether the power went.
    pub fn new(
        seed: u64,
        machines: usize,
        fair: Weather,
        crash: impl Fn(Machine, bool) + Send + 'static,
    ) -> Self {
        let pairs = (0..machines).flat_map(|from| (0..machines).map(move |to| (from, to)));
        let now = Instant::now();
        let host = || Host { is_on: true, next_port: 40_000, ..Host::default() };
        Self(Arc::new(Mutex::new(World {
            dice: fastrand::Rng::with_seed(seed),
            hosts: (0..machines).map(|_| host()).collect(),
            ways: pairs.map(|pair| (pair, Way { weather: fair, busy_until: now })).collect(),
            ends: Vec::new(),
            changed: Arc::default(),
            crash: Box::new(crash),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub fn weather(&self, from: Machine, to: Machine) -> Weather {
        self.lock().ways[&(from, to)].weather
    }

    pub fn set_weather(&self, from: Machine, to: Machine, weather: Weather) {
        let mut world = self.lock();
        world.ways.get_mut(&(from, to)).unwrap().weather = weather;
        world.changed.notify_waiters();
    }

    /// Makes a machine crash by itself later.
    pub fn lay_fuse(&self, machine: Machine, fuse: Fuse) {
        self.lock().hosts[machine].fuse = Some(fuse);
    }

    /// From this moment on, nothing comes from the machine any more. When a process is killed, its system closes its
    /// connections once it is dropped; when the power goes, no peer is notified.
    pub fn crash(&self, machine: Machine, power: bool) {
        let mut world = self.lock();
        let host = &mut world.hosts[machine];
        if std::mem::replace(&mut host.is_frozen, true) {
            return;
        }
        host.fuse = None;
        host.listener = None;
        host.is_on = !power;
        let boot = host.boot;
        if power {
            host.boot += 1;
        }
        for end in world.ends.iter_mut().filter(|end| end.machine == machine && end.boot == boot) {
            end.is_frozen = true;
            end.news.notify_one();
        }
        world.changed.notify_waiters();
        (world.crash)(machine, power);
    }

    /// Turns a machine on again, so that it can run something.
    pub fn start(&self, machine: Machine) {
        let mut world = self.lock();
        let host = &mut world.hosts[machine];
        (host.is_on, host.is_frozen) = (true, false);
        world.changed.notify_waiters();
    }

    pub fn listen(&self, machine: Machine) -> Listener {
        let (sender, arrivals) = mpsc::unbounded_channel();
        self.lock().hosts[machine].listener = Some(sender);
        Listener { arrivals }
    }

    /// Waits until something has crossed from one machine to another, but no longer than a socket waits for an
    /// acknowledgement.
    async fn cross(
        &self,
        from: Machine,
        to: Machine,
        bytes: usize,
        until: Instant,
    ) -> Result<(), io::ErrorKind> {
        loop {
            let (open, changed) = {
                let world = self.lock();
                let open = world.hosts[to].is_on && world.ways[&(from, to)].weather.is_open;
                (open, world.changed.clone())
            };
            if open {
                break;
            }
            timeout_at(until, changed.notified()).await.map_err(|_| io::ErrorKind::TimedOut)?;
            let pause = self.lock().dice.u64(0..RETRANSMIT_MS);
            sleep(Duration::from_millis(pause)).await;
        }
        let arrival = {
            let world = &mut *self.lock();
            let way = world.ways.get_mut(&(from, to)).unwrap();
            let Weather { delay, jitter, bytes_per_s, .. } = way.weather;
            let packets = (bytes as u64).div_ceil(PACKET_BYTES);
            let taken = Duration::from_micros(packets * PACKET_BYTES * 1_000_000 / bytes_per_s);
            way.busy_until = way.busy_until.max(Instant::now()) + taken;
            way.busy_until + delay + jitter.mul_f64(world.dice.f64())
        };
        sleep_until(arrival).await;
        Ok(())
    }

    async fn dial(&self, from: Machine, to: Machine) -> io::Result<Stream> {
        let until = Instant::now() + Duration::from_secs(60);
        self.cross(from, to, 60, until).await?;
        if self.lock().hosts[to].listener.is_none() {
            self.cross(to, from, 60, until).await?;
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.cross(to, from, 60, until).await?;
        self.cross(from, to, 60, until).await?;
        let (ours, theirs, address) = {
            let mut world = self.lock();
            let first = world.ends.len();
            let segment_bytes = [1_400, 4_096, 16_384, 65_536][world.dice.usize(0..4)];
            for (index, machine) in [from, to].into_iter().enumerate() {
                let boot = world.hosts[machine].boot;
                world.ends.push(End {
                    machine,
                    boot,
                    peer: first + 1 - index,
                    segment_bytes,
                    incoming: VecDeque::new(),
                    is_finished: false,
                    error: None,
                    outgoing: VecDeque::new(),
                    unacknowledged: 0,
                    reader: None,
                    writer: None,
                    news: Arc::default(),
                    is_held: true,
                    is_frozen: false,
                    is_shut: false,
                });
            }
            let host = &mut world.hosts[from];
            host.next_port += 1;
            let address = SocketAddr::new(address_of(from), host.next_port);
            let stream = |end| Stream { net: self.clone(), end };
            (stream(first), stream(first + 1), address)
        };
        for end in [ours.end, theirs.end] {
            tokio::spawn(carry(self.clone(), end));
        }
        let listener = self.lock().hosts[to].listener.clone();
        // If nobody listens any more, the stream is dropped, which closes it.
        if let Some(Err(refused)) = listener.map(|listener| listener.send((theirs, address))) {
            drop(refused);
        }
        Ok(ours)
    }

    /// Counts a read or a write of a machine's socket. Returns true if it must not take place.
    fn touch(&self, machine: Machine) -> bool {
        let burned = {
            let mut world = self.lock();
            let Some(fuse) = &mut world.hosts[machine].fuse else { return false };
            fuse.touches = fuse.touches.saturating_sub(1);
            if fuse.touches > 0 {
                return false;
            }
            *fuse
        };
        if burned.after {
            return false;
        }
        self.crash(machine, burned.power);
        true
    }

    /// Crashes a machine whose fuse burned down in the touch that just took place.
    fn touched(&self, machine: Machine) {
        let fuse = self.lock().hosts[machine].fuse;
        if let Some(Fuse { touches: 0, power, .. }) = fuse {
            self.crash(machine, power);
        }
    }

    /// Delivers an item to the other end, or sends back that nobody is there.
    fn deliver(&self, id: EndId, item: Item) {
        let mut world = self.lock();
        let peer_id = world.ends[id].peer;
        let (peer, boot) = (&world.ends[peer_id], world.hosts[world.ends[peer_id].machine].boot);
        let is_there = peer.boot == boot && peer.is_held && peer.error.is_none();
        let (from, to) = (world.ends[id].machine, peer.machine);
        if !is_there {
            if world.ways[&(to, from)].weather.is_open && !matches!(item, Item::Reset) {
                world.ends[id].fail(io::ErrorKind::ConnectionReset);
            }
            return;
        }
        let forgets = world.dice.bool();
        let peer = &mut world.ends[peer_id];
        match item {
            Item::Data(bytes) => {
                let count = bytes.len();
                peer.incoming.push_back(bytes);
                peer.wake();
                drop(world);
                self.acknowledge(id, count, (to, from));
            }
            Item::Fin => {
                peer.is_finished = true;
                peer.wake();
            }
            Item::Reset => {
                if forgets {
                    peer.incoming.clear();
                }
                peer.fail(io::ErrorKind::ConnectionReset);
            }
        }
    }

    fn acknowledge(&self, id: EndId, count: usize, (from, to): (Machine, Machine)) {
        let net = self.clone();
        let done = move |net: &Net| {
            let mut world = net.lock();
            let end = &mut world.ends[id];
            end.unacknowledged -= count;
            end.writer.take().into_iter().for_each(Waker::wake);
        };
        if self.weather(from, to).is_open {
            return done(self);
        }
        tokio::spawn(async move {
            let until = Instant::now() + SILENCE_DEADLINE;
            match net.cross(from, to, 60, until).await {
                Ok(()) => done(&net),
                Err(error) => net.lock().ends[id].fail(error),
            }
        });
    }
}

/// Carries everything that one end sends to the other, for as long as more can come.
async fn carry(net: Net, id: EndId) {
    loop {
        let (item, news, (from, to)) = {
            let mut world = net.lock();
            let (peer, boot) = (world.ends[id].peer, world.hosts[world.ends[id].machine].boot);
            let ways = (world.ends[id].machine, world.ends[peer].machine);
            let end = &mut world.ends[id];
            if end.boot != boot || end.error.is_some() && end.outgoing.is_empty() {
                return;
            }
            (end.outgoing.pop_front(), end.news.clone(), ways)
        };
        let Some(item) = item else {
            news.notified().await;
            continue;
        };
        let bytes = if let Item::Data(bytes) = &item { bytes.len() } else { 60 };
        if let Err(error) = net.cross(from, to, bytes, Instant::now() + SILENCE_DEADLINE).await {
            return net.lock().ends[id].fail(error);
        }
        let is_last = !matches!(item, Item::Data(_));
        net.deliver(id, item);
        if is_last {
            return;
        }
    }
}

pub fn address_of(machine: Machine) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, machine as u8 + 1).into()
}
