//! What security costs: the delay of one page, and the time to send one page to many stations, open and secured, in one
//! run. `cargo bench --bench security_cost -- [STATIONS]`, by default up to 1,000.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../tests/peer/mod.rs"]
mod peer;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bullhorn::event::Event;
use bullhorn::handshake::Contact;
use bullhorn::invite::Invite;
use bullhorn::keys::{NoiseKeys, NoisePublicKey, StateFolder};
use bullhorn::link::{self, Frame};
use bullhorn::membership::Membership;
use bullhorn::site::Site;
use bullhorn::wire::{BLOCK_BYTES, ClipHeader, FromAnnouncer, FromStation, Receipt, TAG_BYTES};
use peer::{Hall, Office, clip_of};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};

/// 480 kB: 5 s at 48 kHz.
const RATE_HZ: u32 = 48_000;
const FRAMES: u32 = 240_000;
/// Each page is played to its end, 5 s.
const PAGES: usize = 10;
const ROUNDS: usize = 5;
/// Simultaneous handshakes, well under the number that the announcer accepts from one address.
const DIALS_AT_ONCE: usize = 64;
const DELAY_TARGET: Duration = Duration::from_millis(5);
const RATIO_TARGET: f64 = 1.5;
const MINUTE: Duration = Duration::from_secs(60);

/// An announcer, with or without a site.
struct Building {
    office: Office,
    site: Option<(Arc<Site>, NoisePublicKey)>,
    _home: TempDir,
}

impl Building {
    async fn open(is_secured: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let site = is_secured.then(|| {
            let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
            let site = Arc::new(Site::open(&folder).unwrap());
            let key = site.invite().unwrap().announcer();
            (site, key)
        });
        let shared = site.as_ref().map(|(site, _)| site.clone());
        let office = Office::open_as(shared, RATE_HZ, &clip_of(FRAMES), MINUTE).await;
        Self { office, site, _home: home }
    }

    /// The time from the announcement until `stations` stations have verified it.
    async fn page(&mut self, stations: usize) -> Duration {
        let verified = Cell::new(0);
        let since = Instant::now();
        self.office.announce().await;
        let all = |event: &Event| {
            verified.set(verified.get() + usize::from(matches!(event, Event::Verified { .. })));
            (verified.get() == stations).then(Instant::now)
        };
        let until = self.office.log.until("all to verify", all).await;
        assert_eq!(self.office.verdict().await, (stations, stations, vec![]));
        until - since
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn figure(what: &str, measured: &str, within: bool, target: &str) {
    let verdict = if within { "within" } else { "OVER" };
    println!("{what:<44} {measured:>54}   {verdict} the target of {target}");
}

/// Measures one real station, from the announcement until it has verified.
async fn measure_delay() {
    let mut medians = Vec::new();
    let mut lanes = Vec::new();
    for is_secured in [false, true] {
        let building = Building::open(is_secured).await;
        let (home, address) = (tempfile::tempdir().unwrap(), building.office.address);
        let membership = building.site.as_ref().map(|(site, _)| {
            let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
            let host = address.ip().to_string();
            let invite = Some(site.invite().unwrap());
            Membership::open(&folder, (&host, address.port()), "hall-1", &[], invite).unwrap()
        });
        let hall = Hall::open_as(address, "hall-1", vec![], membership);
        lanes.push((building, hall, home, Vec::new()));
    }
    for (building, ..) in &mut lanes {
        building.office.joined("hall-1").await;
    }
    // In turns, so that other work of the machine affects both equally.
    for _ in 0..PAGES {
        for (building, _, _, times) in &mut lanes {
            times.push(building.page(1).await);
        }
    }
    for (building, hall, _, times) in lanes {
        medians.push(median(times));
        hall.close().await;
        building.office.close().await;
    }
    let grows = medians[1].saturating_sub(medians[0]);
    figure(
        &format!("announced to verified, 480 kB, {PAGES} times"),
        &format!("open {:.2?}, secured {:.2?}: {grows:.2?} more", medians[0], medians[1]),
        grows < DELAY_TARGET,
        "5 ms more",
    );
}

/// Accepts one clip and answers for it; no sound, no disk.
async fn light_station(
    address: SocketAddr,
    number: usize,
    introduction: Option<(NoiseKeys, Option<Invite>, NoisePublicKey)>,
    doors: Arc<Semaphore>,
    ready: mpsc::Sender<()>,
) {
    let place = doors.acquire().await.unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    link::prepare(&stream).unwrap();
    let introduced = introduction.as_ref().map(|(keys, invite, pinned)| {
        let contact = invite.as_ref().map_or(Contact::Pinned(*pinned), Contact::Invite);
        (keys, contact, "the announcer")
    });
    let ((mut receiver, mut sender), _) = link::dial(stream, introduced).await.unwrap();
    let hello = FromStation::Hello {
        name: format!("hall-{number}"),
        zones: vec![],
        instance: number as u64,
        last: None,
        nonce: introduction.as_ref().map(|_| [7; 16]),
        begun: None,
    };
    sender.send(&hello).await.unwrap();
    let mut signs = interval(link::PING_INTERVAL);
    signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missing = 0;
    let mut clip = None;
    let mut place = Some(place);
    loop {
        let frame = tokio::select! {
            frame = receiver.next() => frame.unwrap(),
            _ = signs.tick() => {
                sender.send(&FromStation::Ping { t1_us: 1 }).await.unwrap();
                continue;
            }
        };
        match frame {
            Some(Frame::Message(FromAnnouncer::Welcome { .. })) => {
                place = None;
                ready.send(()).await.unwrap();
            }
            Some(Frame::Message(FromAnnouncer::Clip { header, .. })) => {
                let header = ClipHeader::decode(&header).unwrap();
                let bytes = header.format.wav_bytes as usize;
                let tags = if introduction.is_some() { bytes.div_ceil(BLOCK_BYTES) * TAG_BYTES } else { 0 };
                missing = bytes + tags;
                clip = Some(header.id);
                receiver.expect_blocks(true);
            }
            Some(Frame::Block(block)) => {
                missing -= block.len();
                if let (0, Some(clip)) = (missing, clip) {
                    sender.send(&FromStation::Verified { clip, lead_us: 0 }).await.unwrap();
                }
            }
            Some(Frame::Message(FromAnnouncer::PlayAt { clip, .. })) => {
                let receipt = Receipt {
                    clip,
                    frames: FRAMES.into(),
                    start_error_us: 0,
                    max_error_us: 0,
                    underruns: 0,
                    uncertainty_us: 0,
                };
                sender.send(&FromStation::Played(receipt)).await.unwrap();
            }
            Some(Frame::Message(FromAnnouncer::Noted { .. })) | None => break,
            Some(Frame::Message(_)) => (),
        }
    }
    drop(place);
}

async fn measure_fan_out(stations: usize) {
    let mut lanes = Vec::new();
    for is_secured in [false, true] {
        lanes.push((Building::open(is_secured).await, Vec::new()));
    }
    let keys: Vec<NoiseKeys> = (0..stations).map(|_| NoiseKeys::generate().unwrap()).collect();
    for round in 0..=ROUNDS {
        for (building, times) in &mut lanes {
            let (ready, mut here) = mpsc::channel(stations);
            let doors = Arc::new(Semaphore::new(DIALS_AT_ONCE));
            let mut tasks = tokio::task::JoinSet::new();
            for (number, keys) in keys.iter().enumerate() {
                let introduction = building.site.as_ref().map(|(site, key)| {
                    let invite = (round == 0).then(|| site.invite().unwrap());
                    (keys.clone(), invite, *key)
                });
                let address = building.office.address;
                tasks.spawn(light_station(address, number, introduction, doors.clone(), ready.clone()));
            }
            for _ in 0..stations {
                here.recv().await.unwrap();
            }
            let took = building.page(stations).await;
            // The first round is a warm-up.
            if round > 0 {
                times.push(took);
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        }
    }
    let mut medians = Vec::new();
    for (building, times) in lanes {
        medians.push(median(times));
        building.office.close().await;
    }
    let ratio = medians[1].as_secs_f64() / medians[0].as_secs_f64();
    figure(
        &format!("480 kB to {stations} stations, {ROUNDS} times"),
        &format!("open {:.1?}, secured {:.1?}: {ratio:.2} times", medians[0], medians[1]),
        ratio <= RATIO_TARGET,
        "1.5 times",
    );
}

fn main() {
    // cargo bench itself passes --bench.
    let most = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_usize);
    rlimit::increase_nofile_limit(4 * most as u64 + 1_000).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        measure_delay().await;
        for stations in [1, 10, 100, 300, 1_000].into_iter().filter(|stations| *stations <= most) {
            measure_fan_out(stations).await;
        }
    });
}
