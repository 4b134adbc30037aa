//! At the limit: a station too many is refused with that reason, and the stations already here never suffer.

use std::process::Stdio;
use std::time::Duration;

use crate::peer::{Heard, PATIENCE, RawStation, clip_of, hello, wav};
use bullhorn::wire::{FromAnnouncer, FromStation, Mode, Preface, Receipt, Status};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// The real program, open, started by a shell that sets limits first.
struct Office {
    address: std::net::SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
    input: ChildStdin,
    child: Child,
    early: Vec<Value>,
    _folder: TempDir,
}

impl Office {
    async fn open(limits: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spoken = folder.path().join("spoken.wav");
        std::fs::write(&spoken, wav(8_000, &clip_of(800))).unwrap();
        let program = env!("CARGO_BIN_EXE_bullhorn");
        let spoken = spoken.display();
        let line = format!(
            "{limits} exec {program} announce --open --listen 127.0.0.1:0 --input file:{spoken} --events json {more}"
        );
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = "127.0.0.1:0".parse().unwrap();
        let mut office = Self { address, lines, input, child, early: Vec::new(), _folder: folder };
        let listening = office.until("listening").await;
        office.address = listening["address"].as_str().unwrap().parse().unwrap();
        office
    }

    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await.expect("nothing is told").unwrap();
            let event: Value = serde_json::from_str(&line.expect("the announcer is gone")).unwrap();
            if event["event"] == kind {
                return event;
            }
            self.early.push(event);
        }
    }

    /// Announces to these stations, which all play, and reads the verdict.
    async fn page(&mut self, stations: &mut [RawStation]) {
        self.input.write_all(b"\n").await.unwrap();
        for station in stations.iter_mut() {
            let (header, _) = station.whole_clip().await;
            station.say(&FromStation::Verified { clip: header.id, lead_us: 0 }).await;
        }
        for station in stations.iter_mut() {
            let Heard::Message(FromAnnouncer::PlayAt { clip, .. }) = station.next().await else {
                panic!("no instant");
            };
            let receipt = Receipt {
                clip,
                frames: 800,
                start_error_us: 0,
                max_error_us: 0,
                underruns: 0,
                uncertainty_us: 0,
            };
            station.say(&FromStation::Played(receipt)).await;
        }
        let done = self.until("done").await;
        assert_eq!((&done["played"], &done["expected"]), (&stations.len().into(), &stations.len().into()));
        assert!(self.child.try_wait().unwrap().is_none(), "it lives");
    }
}

/// Dials and says hello; returns the connection if welcome, or the reason if not.
async fn join(office: &Office, index: usize) -> Result<RawStation, String> {
    let mut station = RawStation::open(office.address).await;
    station.say(&hello(&format!("hall-{index}"), index as u64)).await;
    match station.hear().await {
        Heard::Message(FromAnnouncer::Welcome { .. }) => Ok(station),
        Heard::Message(FromAnnouncer::Refused { reason }) => Err(reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_station_above_the_limit_is_refused_with_a_reason() {
    let mut office = Office::open("", "--max-stations 3").await;
    let mut here = Vec::new();
    for index in 0..3 {
        here.push(join(&office, index).await.unwrap());
    }
    let refusal = join(&office, 3).await.err().unwrap();
    assert_eq!(refusal, "3 stations are here already, which is the limit");
    office.page(&mut here).await;
    // They are free to leave, and then there is room.
    drop(here);
    let deadline = Instant::now() + PATIENCE;
    while join(&office, 3).await.is_err() {
        assert!(Instant::now() < deadline, "a place that is left stays taken");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_few_files_may_be_open_the_announcer_says_so_and_takes_fewer_stations() {
    let mut office = Office::open("ulimit -n 200 &&", "").await;
    let warning = match office.early.iter().find(|event| {
        event["event"] == "warning" && event["message"].as_str().unwrap().contains("open files")
    }) {
        Some(warning) => warning.clone(),
        None => office.until("warning").await,
    };
    let words = warning["message"].as_str().unwrap();
    assert!(words.contains("allows 200 open files") && words.contains("room for 86 stations"), "{words}");
    let mut here = Vec::new();
    for index in 0..86 {
        here.push(join(&office, index).await.unwrap());
    }
    for index in 86..120 {
        let refusal = join(&office, index).await.err().unwrap();
        assert_eq!(refusal, "86 stations are here already, which is the limit");
    }
    office.page(&mut here).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_memory_is_short_stations_are_refused_before_it_is_gone() {
    // The memory that the program uses before the first station depends on the machine, but not on chance.
    let alone = Office::open("export MALLOC_ARENA_MAX=1;", "").await;
    let id = alone.child.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    let own_kib: usize = line.split_whitespace().next().unwrap().parse().unwrap();
    drop(alone);
    let mut office =
        Office::open(&format!("export MALLOC_ARENA_MAX=1; ulimit -v {} &&", own_kib + 24 * 1_024), "").await;
    let is_it = |event: &Value| {
        event["event"] == "warning" && event["message"].as_str().unwrap().contains("of memory are free")
    };
    let warning = match office.early.iter().find(|event| is_it(event)) {
        Some(warning) => warning.clone(),
        None => loop {
            let warning = office.until("warning").await;
            if is_it(&warning) {
                break warning;
            }
        },
    };
    let words = warning["message"].as_str().unwrap();
    let room = words.split("room for ").nth(1).and_then(|words| words.split(' ').next()).unwrap();
    let room: usize = room.parse().unwrap();
    assert!((50..5_000).contains(&room), "{words}");
    let mut here = Vec::new();
    for index in 0..room {
        here.push(tokio::spawn(attend(join(&office, index).await.unwrap())));
    }
    // Hundreds more: some are refused with a reason, and some send nothing for as long as they are allowed to.
    for index in room..room + 100 {
        let refusal = join(&office, index).await.err().unwrap();
        assert_eq!(refusal, format!("{room} stations are here already, which is the limit"));
    }
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(RawStation::dial(office.address).await);
    }
    office
        .input
        .write_all(
            b"
",
        )
        .await
        .unwrap();
    let done = office.until("done").await;
    assert_eq!((&done["played"], &done["expected"]), (&room.into(), &room.into()), "{done}");
    drop(silent);
    for station in here {
        station.await.unwrap();
    }
    // They have left, and there is room again.
    let deadline = Instant::now() + PATIENCE;
    while join(&office, room).await.is_err() {
        assert!(Instant::now() < deadline, "a place that is left stays taken");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(office.child.try_wait().unwrap().is_none(), "it lives");
}

/// Hears one page as a station, and leaves.
async fn attend(mut station: RawStation) {
    let (header, _) = station.whole_clip().await;
    station.say(&FromStation::Verified { clip: header.id, lead_us: 0 }).await;
    let Heard::Message(FromAnnouncer::PlayAt { clip, .. }) = station.next().await else {
        panic!("no instant")
    };
    let receipt =
        Receipt { clip, frames: 800, start_error_us: 0, max_error_us: 0, underruns: 0, uncertainty_us: 0 };
    station.say(&FromStation::Played(receipt)).await;
    assert!(matches!(station.next().await, Heard::Message(FromAnnouncer::Noted { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_descriptor_left_strangers_are_told_to_come_again() {
    // There is room for itself and a few connections: the system refuses before the announcer does.
    let office = Office::open("ulimit -n 20 &&", "").await;
    let mut dialled = Vec::new();
    for _ in 0..40 {
        dialled.push(RawStation::dial(office.address).await);
    }
    let (mut told, mut cut) = (0, 0);
    for station in &mut dialled[20..] {
        let mut answer = [0; 12];
        let read = tokio::io::AsyncReadExt::read_exact(&mut station.stream, &mut answer);
        match timeout(PATIENCE, read).await.expect("left waiting") {
            Ok(_) => {
                assert_eq!(answer[11], Status::Busy as u8);
                told += 1;
            }
            Err(_) => cut += 1,
        }
    }
    assert!(told >= 15, "{told} told, {cut} cut");
    drop(dialled);
    // It hears again once it has noticed that they are gone.
    let hears = async {
        loop {
            let mut station = RawStation::dial(office.address).await;
            station.bytes(&Preface::of_station(Mode::Open).encode()).await;
            if station.preface().await.status == Status::Ready as u8 {
                return;
            }
        }
    };
    timeout(PATIENCE, hears).await.expect("a deaf announcer");
}
