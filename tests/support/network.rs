//! A network that fails: it relays between stations and an announcer, and does to the traffic what networks do.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// The direction in which bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the station to the announcer.
    Up,
    /// From the announcer to the station.
    Down,
}

/// A fault of the network. The first six strike once, at the first connection to which they apply; the others last
/// until they are healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends see the connection end.
    Cut,
    /// Both ends see the connection reset.
    Reset,
    /// The receiver of this direction sees it reset; the sender sees nothing, and is never answered again.
    HalfOpen(Way),
    /// A bit of the next bytes is flipped.
    Flip(Way),
    /// Only a part of the next bytes arrives, and then the end.
    Truncate(Way),
    /// The next bytes arrive twice.
    Duplicate(Way),
    /// Nothing gets through in this direction.
    BlackHole(Way),
    /// Everything arrives later by this much.
    Delay(Duration),
    /// Everything arrives later by up to this much, at random.
    Jitter(Duration),
    /// No more than this many bytes per second get through.
    Bandwidth(u64),
    /// Every byte arrives on its own.
    OneByte,
    /// The end of a connection arrives later than its last byte by this much.
    SlowClose(Duration),
}

impl Fault {
    fn lasts(self) -> bool {
        !matches!(
            self,
            Self::Cut
                | Self::Reset
                | Self::HalfOpen(_)
                | Self::Flip(_)
                | Self::Truncate(_)
                | Self::Duplicate(_)
        )
    }
}

/// When a fault strikes by itself, just before the bytes that trigger it are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// This many bytes have gone down.
    BytesDown(u64),
    /// More than this many bytes go up at once.
    LongPieceUp(usize),
}

/// The faults in effect.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// A fault that strikes once, until it has struck.
    strike: Option<Fault>,
    lasting: Option<Fault>,
}

struct Armed {
    fault: Fault,
    trigger: Trigger,
    seen: u64,
}

struct Inner {
    target: SocketAddr,
    weather: watch::Sender<Weather>,
    armed: Mutex<Option<Armed>>,
    /// How often a fault did something to bytes or to a connection.
    deeds: watch::Sender<usize>,
    /// The kept ends of half-open connections, which nobody closes.
    abandoned: Mutex<Vec<TcpStream>>,
}

/// The network between some stations and an announcer.
#[derive(Clone)]
pub struct Network {
    /// The address that stations dial.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

impl Network {
    /// Opens a network that works, to an announcer.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            target,
            weather: watch::Sender::default(),
            armed: Mutex::default(),
            deeds: watch::Sender::default(),
            abandoned: Mutex::default(),
        });
        let shared = inner.clone();
        tokio::spawn(async move {
            while let Ok((station, _)) = listener.accept().await {
                tokio::spawn(relay(station, shared.clone()));
            }
        });
        Self { address, inner }
    }

    /// How often a fault did something.
    pub fn deeds(&self) -> usize {
        *self.inner.deeds.borrow()
    }

    /// Makes a fault strike now.
    pub fn strike(&self, fault: Fault) {
        self.inner.strike(fault);
    }

    /// Makes a fault strike when it is triggered.
    pub fn arm(&self, fault: Fault, trigger: Trigger) {
        *self.inner.armed() = Some(Armed { fault, trigger, seen: 0 });
    }

    /// Ends the lasting fault.
    pub fn heal(&self) {
        self.inner.weather.send_modify(|weather| weather.lasting = None);
    }

    /// Waits until a fault has done something.
    pub async fn struck(&self) {
        let _ = self.inner.deeds.subscribe().wait_for(|deeds| *deeds > 0).await;
    }
}

impl Inner {
    fn armed(&self) -> std::sync::MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike(&self, fault: Fault) {
        self.weather.send_modify(|weather| match fault.lasts() {
            true => weather.lasting = Some(fault),
            false => weather.strike = Some(fault),
        });
    }

    /// Takes the fault that strikes once, if it is this one.
    fn take(&self, fault: Fault) -> bool {
        let taken =
            self.weather.send_if_modified(|weather| weather.strike.take_if(|it| *it == fault).is_some());
        if taken {
            self.did();
        }
        taken
    }

    fn did(&self) {
        self.deeds.send_modify(|deeds| *deeds += 1);
    }

    /// Checks whether these bytes trigger the armed fault.
    fn look(&self, way: Way, length: usize) {
        let mut armed = self.armed();
        let Some(it) = &mut *armed else { return };
        let is_due = match (it.trigger, way) {
            (Trigger::BytesDown(bytes), Way::Down) => {
                it.seen += length as u64;
                it.seen >= bytes
            }
            (Trigger::LongPieceUp(bytes), Way::Up) => length > bytes,
            _ => false,
        };
        if is_due {
            let fault = it.fault;
            *armed = None;
            drop(armed);
            self.strike(fault);
        }
    }
}

/// How a connection ends.
enum End {
    Closed,
    Reset,
    HalfOpen(Way),
}

async fn relay(mut station: TcpStream, inner: Arc<Inner>) {
    let Ok(mut announcer) = TcpStream::connect(inner.target).await else { return };
    for stream in [&station, &announcer] {
        stream.set_nodelay(true).unwrap();
    }
    let end = {
        let (from_station, to_station) = station.split();
        let (from_announcer, to_announcer) = announcer.split();
        tokio::select! {
            _ = async {
                tokio::join!(
                    pump(Way::Up, from_station, to_announcer, &inner),
                    pump(Way::Down, from_announcer, to_station, &inner),
                )
            } => End::Closed,
            end = struck(&inner) => end,
        }
    };
    let reset = |stream: &TcpStream| {
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    };
    match end {
        End::Closed => (),
        End::Reset => [&station, &announcer].into_iter().for_each(reset),
        End::HalfOpen(way) => {
            let (gone, kept) = if way == Way::Up { (announcer, station) } else { (station, announcer) };
            reset(&gone);
            inner.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        }
    }
}

/// Waits for a fault that ends a connection at once.
async fn struck(inner: &Inner) -> End {
    let mut weather = inner.weather.subscribe();
    loop {
        let strike = weather.borrow_and_update().strike;
        let end = match strike {
            Some(Fault::Cut) => Some(End::Closed),
            Some(Fault::Reset) => Some(End::Reset),
            Some(Fault::HalfOpen(way)) => Some(End::HalfOpen(way)),
            _ => None,
        };
        if let Some(end) = end.filter(|_| strike.is_some_and(|it| inner.take(it))) {
            return end;
        }
        if weather.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One direction of one connection: incoming bytes are stamped, and passed on when the weather allows it.
async fn pump(way: Way, mut from: ReadHalf<'_>, to: WriteHalf<'_>, inner: &Inner) {
    let (bytes, coming) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut block = vec![0; 16_384];
        while let Ok(count @ 1..) = from.read(&mut block).await {
            if bytes.send((Instant::now(), block[..count].to_vec())).is_err() {
                return;
            }
        }
    };
    // When the reader ends, so does the channel, and the writer passes the end on.
    let ((), _) = tokio::join!(read, write(way, coming, to, inner));
}

async fn write(
    way: Way,
    mut coming: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    mut to: WriteHalf<'_>,
    inner: &Inner,
) -> io::Result<()> {
    let mut weather = inner.weather.subscribe();
    while let Some((came, mut piece)) = coming.recv().await {
        inner.look(way, piece.len());
        if inner.take(Fault::Flip(way)) {
            let place = getrandom::u32().unwrap_or(0) as usize % piece.len();
            piece[place] ^= 1 << (getrandom::u32().unwrap_or(0) % 8);
        } else if inner.take(Fault::Duplicate(way)) {
            piece = piece.repeat(2);
        } else if inner.take(Fault::Truncate(way)) {
            to.write_all(&piece[..piece.len() / 2]).await?;
            return to.shutdown().await;
        }
        // A fault that ends the connection comes before these bytes.
        tokio::task::yield_now().await;
        pass(way, came, &piece, &mut to, inner, &mut weather).await?;
    }
    let slow = match weather.borrow().lasting {
        Some(Fault::SlowClose(time)) => Some(time),
        _ => None,
    };
    if let Some(time) = slow {
        inner.did();
        sleep(time).await;
    }
    to.shutdown().await
}

/// Passes bytes on as the current weather allows.
async fn pass(
    way: Way,
    came: Instant,
    mut bytes: &[u8],
    to: &mut WriteHalf<'_>,
    inner: &Inner,
    weather: &mut watch::Receiver<Weather>,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let lasting = weather.borrow_and_update().lasting;
        let step = match lasting {
            Some(Fault::Bandwidth(_)) => bytes.len().min(1_024),
            Some(Fault::OneByte) => 1,
            _ => bytes.len(),
        };
        match lasting {
            Some(Fault::BlackHole(at)) if at == way => {
                inner.did();
                if weather.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            Some(Fault::Delay(time)) => sleep_until(came + time).await,
            Some(Fault::Jitter(most)) => {
                let share = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
                sleep_until(came + most.mul_f64(share)).await;
            }
            Some(Fault::Bandwidth(rate)) => {
                sleep(Duration::from_secs_f64(step as f64 / rate as f64)).await;
            }
            Some(Fault::OneByte) => tokio::task::yield_now().await,
            _ => (),
        }
        if lasting.is_some_and(|fault| !matches!(fault, Fault::SlowClose(_) | Fault::BlackHole(_))) {
            inner.did();
        }
        to.write_all(&bytes[..step]).await?;
        bytes = &bytes[step..];
    }
    Ok(())
}
