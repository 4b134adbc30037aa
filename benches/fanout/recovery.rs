//! How soon a lost link is reported, and how soon all stations are back: after a restart of the announcer, and after
//! the network has swallowed everything for 30 s.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::crowd::{self, Office};
use super::measure::{Crowd, Page, SECONDS, announcer_with, site};
use super::process::Process;

/// How long the network is cut.
const CUT: Duration = Duration::from_secs(30);
/// How long the announcer is away.
const AWAY: [Duration; 2] = [Duration::ZERO, Duration::from_secs(20)];

/// The commands of a network that can be cut.
pub struct Network<'a> {
    /// The announcer's address.
    pub at: &'a str,
    /// The command that starts a program on the announcer's machine.
    pub through: &'a str,
    /// The command that cuts the network, and the one that restores it.
    pub cut: &'a str,
    pub mend: &'a str,
}

fn run(words: &str) {
    let status = Command::new("sh").args(["-c", words]).status().unwrap();
    assert!(status.success(), "{words}");
}

/// Prints how many times there are, then the median, the 99th percentile and the last, in seconds after `since`.
fn show(what: &str, since: Instant, mut times: Vec<Instant>) {
    times.sort();
    let at = |share: f64| {
        let index = (times.len() as f64 * share).ceil() as usize;
        (times[index.saturating_sub(1)] - since).as_secs_f64()
    };
    println!(
        "{what}: {} of them, p50 {:.2} s, p99 {:.2} s, last {:.2} s",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Returns when the announcer emitted `event` for each of `stations` stations.
async fn told(process: &mut Process, event: &str, stations: usize) -> Vec<Instant> {
    let mut times = Vec::new();
    while times.len() < stations {
        let (at, line) = process.stamped_line().await;
        let said: Value = serde_json::from_str(&line).unwrap();
        if said["event"] == event {
            times.push(at);
        }
    }
    times
}

pub async fn measure(stations: usize, repeat: usize, network: &Network<'_>) {
    let (folder, keys, station_keys) = site(stations);
    let listen = format!("{}:0", network.at);
    let (mut process, port, _) = announcer_with(folder.path(), &listen, network.through, &[]).await;
    let office = Arc::new(Office {
        address: network.at.parse::<Ipv4Addr>().unwrap(),
        port: AtomicU16::new(port),
        noise: keys.noise().public(),
        announcer: keys.id(),
        whole: AtomicBool::new(false),
        plays: Duration::from_secs(SECONDS.into()),
        bytes_heard: AtomicU64::new(0),
        sources: Some([10, 20]),
    });
    let (sender, news) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for (index, keys) in station_keys.into_iter().enumerate() {
        tasks.spawn(crowd::station(index, keys, office.clone(), sender.clone()));
    }
    let mut crowd = Crowd { stations, news, lost: Vec::new(), failed: 0 };
    crowd.until(&mut Page::default(), "all to join", |page| page.joined >= stations).await;
    told(&mut process, "station-joined", stations).await;
    let listen = format!("{}:{port}", network.at);
    for _ in 0..repeat {
        // Links that were up for long enough are redialled at once.
        sleep(Duration::from_secs(4)).await;
        run(network.cut);
        let cut = Instant::now();
        let left = told(&mut process, "station-left", stations).await;
        show("cut: shown as lost by the announcer", cut, left);
        let mut page = Page::default();
        crowd.until(&mut page, "all to notice", |page| page.lost_at.len() >= stations).await;
        show("cut: the announcer lost by stations", cut, page.lost_at);
        tokio::time::sleep_until(cut + CUT).await;
        run(network.mend);
        let mended = Instant::now();
        let mut page = Page::default();
        crowd.until(&mut page, "all to be back", |page| page.joined >= stations).await;
        show("mended after 30 s: back", mended, page.joined_at);
        told(&mut process, "station-joined", stations).await;
    }
    for away in AWAY {
        for _ in 0..repeat {
            sleep(Duration::from_secs(4)).await;
            process.kill().await;
            sleep(away).await;
            let (again, _, listening) = announcer_with(folder.path(), &listen, network.through, &[]).await;
            process = again;
            let mut page = Page::default();
            crowd.until(&mut page, "all to be back", |page| page.joined >= stations).await;
            show(&format!("restarted after {} s: back", away.as_secs()), listening, page.joined_at);
        }
    }
    drop(tasks);
    process.kill().await;
}
