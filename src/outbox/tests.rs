#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use tokio::sync::mpsc;

use super::*;
use crate::sample::Sound;
use crate::wire::ClipId;

const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    state: StateFolder,
    outbox: Outbox,
    kept: Vec<Kept>,
    told: mpsc::Receiver<Event>,
    _events: Events,
}

fn open(state: &StateFolder) -> Rig {
    let (events, told) = Events::channel();
    let (outbox, kept) = Outbox::open(state, events.clone()).unwrap();
    Rig { state: state.clone(), outbox, kept, told, _events: events }
}

impl Rig {
    fn file(&self, name: &str) -> PathBuf {
        self.state.path().join(FOLDER).join(name)
    }

    fn warnings(&mut self) -> Vec<String> {
        let warning = |event| match event {
            Event::Warning { message } => Some(message),
            _ => None,
        };
        std::iter::from_fn(|| self.told.try_recv().ok()).filter_map(warning).collect()
    }

    async fn put(&self, sequence: u64) -> Result<(), OutboxError> {
        let (header, clip) = clip(sequence);
        self.outbox.put(&header, &header.encode(), &[7; 64], &clip, PATIENCE).await
    }

    async fn reopened(self) -> Self {
        self.outbox.close(PATIENCE).await;
        open(&self.state)
    }
}

fn clip(sequence: u64) -> (ClipHeader, Clip) {
    let samples = (0..4_000).map(|n| (n as f32 * 0.01 * sequence as f32).sin() / 2.0).collect();
    let clip = Clip::encode(&Sound { rate_hz: 8_000, samples }).unwrap();
    let header = ClipHeader {
        id: ClipId { epoch: 0xABCD_EF01, sequence },
        created_unix_ms: 1_795_000_000_000,
        expires_unix_ms: 1_795_000_060_000,
        format: clip.format(),
        sha256: *clip.sha256(),
        priority: Default::default(),
        zones: vec!["gym".into()],
    };
    (header, clip)
}

fn name(sequence: u64) -> String {
    clip(sequence).0.id.to_string()
}

fn state() -> (tempfile::TempDir, StateFolder) {
    let home = tempfile::tempdir().unwrap();
    let state = StateFolder::open(Some(&home.path().join("state"))).unwrap();
    (home, state)
}

fn failed(clip: u64, station: &str, outcome: Outcome) -> Event {
    Event::Failed { clip: name(clip), station: station.into(), outcome, reason: String::new() }
}

#[tokio::test]
async fn a_clip_comes_back_to_the_bit_with_what_is_known_of_it() {
    let (_home, state) = state();
    let rig = open(&state);
    assert!(rig.kept.is_empty());
    rig.put(2).await.unwrap();
    rig.put(1).await.unwrap();
    let stations = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
    rig.outbox.note(&Event::Sending { clip: name(1), stations });
    let verified = |station: &str| Event::Verified { clip: name(1), station: station.into() };
    ["a", "b", "c", "e"].iter().for_each(|station| rig.outbox.note(&verified(station)));
    for station in ["b", "e"] {
        rig.outbox.note(&Event::Playing { clip: name(1), station: station.into() });
    }
    rig.outbox.note(&verified("e"));
    rig.outbox.note(&failed(1, "c", Outcome::Interrupted));
    rig.outbox.note(&failed(9, "c", Outcome::Missed));
    let rig = rig.reopened().await;
    let [first, second] = &rig.kept[..] else { panic!("{:?}", rig.kept) };
    let (header, clip) = clip(1);
    assert_eq!((&first.header, &first.encoded, &first.clip), (&header, &header.encode(), &clip));
    assert_eq!((&first.signature[..], first.settled), (&[7; 64][..], false));
    let known = first.known.as_ref().unwrap();
    let has_it = Restored { has_it: true, ..Restored::default() };
    assert_eq!(known["a"], has_it);
    assert_eq!(known["b"], Restored { begun: true, ..has_it });
    assert_eq!(known["c"], Restored { outcome: Some(Outcome::Interrupted), ..has_it });
    assert_eq!(known["d"], Restored::default());
    assert_eq!(known["e"], Restored { again: true, ..has_it }, "it was given it again after it had begun");
    assert_eq!((second.header.id.sequence, &second.known), (2, &None));
    assert!(!rig.file(&log_file(&name(9))).exists(), "nothing is noted of a clip that is not here");
}

#[tokio::test]
async fn a_clip_that_is_removed_leaves_nothing() {
    let (_home, state) = state();
    let rig = open(&state);
    rig.put(1).await.unwrap();
    rig.outbox.note(&failed(1, "a", Outcome::Missed));
    rig.outbox.remove(&name(1));
    let rig = rig.reopened().await;
    assert!(rig.kept.is_empty());
    let left: Vec<_> = fs::read_dir(rig.file("")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "lock"), "{left:?}");
}

#[tokio::test]
async fn a_log_torn_at_every_byte_is_repaired_and_goes_on() {
    let (_home, state) = state();
    let rig = open(&state);
    rig.put(1).await.unwrap();
    rig.outbox.note(&Event::Sending { clip: name(1), stations: vec!["a".into(), "b".into()] });
    rig.outbox.note(&failed(1, "a", Outcome::Missed));
    let mut rig = rig.reopened().await;
    let log = rig.file(&log_file(&name(1)));
    let whole = fs::read(&log).unwrap();
    for length in 0..whole.len() {
        fs::write(&log, &whole[..length]).unwrap();
        rig = rig.reopened().await;
        assert_eq!(rig.kept.len(), 1);
        rig.outbox.note(&failed(1, "b", Outcome::Rejected));
        rig = rig.reopened().await;
        let known = rig.kept[0].known.as_ref().unwrap();
        assert_eq!(known["b"].outcome, Some(Outcome::Rejected), "cut at {length}");
        assert_eq!(known.get("a").and_then(|a| a.outcome), None);
    }
}

#[tokio::test]
async fn a_clip_file_damaged_anywhere_is_told_and_never_offered() {
    let (_home, state) = state();
    let rig = open(&state);
    rig.put(1).await.unwrap();
    let mut rig = rig.reopened().await;
    let file = rig.file(&clip_file(&name(1)));
    let whole = fs::read(&file).unwrap();
    let damages = (0..whole.len()).step_by(101).flat_map(|at| {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        [whole[..at].to_vec(), flipped]
    });
    for damaged in damages {
        fs::write(&file, &damaged).unwrap();
        rig = rig.reopened().await;
        // The parts that the clip's own hash does not cover are covered by the header's signature at the station.
        if let [kept] = &rig.kept[..] {
            assert_eq!(kept.clip, clip(1).1);
        } else {
            let said = rig.warnings();
            assert!(said.len() == 1 && said[0].contains("earlier run is lost"), "{said:?}");
            assert!(!file.exists());
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(&file).unwrap();
    }
}

/// Runs one test of this program again with a small file system of its own for the state folder.
fn on_its_own_file_system(test: &str, script: &str) {
    let home = tempfile::tempdir().unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let script = format!(
        "mount -t tmpfs -o size=64k,mode=0700 tmpfs \"$D\"; {script}\nexec \"$0\" --exact \"$1\" --nocapture"
    );
    let result = Command::new("unshare")
        .args([if root { "-m" } else { "-rm" }, "sh", "-ec", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env("D", home.path())
        .env("BULLHORN_TEST_FOLDER", home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success(), "{said}{}", String::from_utf8_lossy(&result.stderr));
    assert!(said.contains("1 passed") && said.contains("was refused"), "{said}");
}

#[tokio::test]
async fn a_full_disk_is_told_once_and_mends_by_itself() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        return on_its_own_file_system("outbox::tests::a_full_disk_is_told_once_and_mends_by_itself", "");
    };
    let mut rig = open(&StateFolder::open(Some(path.as_ref())).unwrap());
    rig.put(1).await.unwrap();
    let filler = Path::new(&path).join("filler");
    let fill = fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    assert_eq!(fill.kind(), std::io::ErrorKind::StorageFull);
    let refused = rig.put(2).await.unwrap_err();
    assert!(matches!(refused, OutboxError::Folder(KeysError::Full { .. })), "{refused}");
    let mut noted = 0;
    while rig.warnings().is_empty() {
        rig.outbox.note(&Event::Sending { clip: name(1), stations: vec!["x".repeat(4_000)] });
        rig.outbox.close(PATIENCE).await;
        noted += 1;
        assert!(noted < 100, "the disk is not full");
    }
    rig.outbox.note(&Event::Sending { clip: name(1), stations: vec!["x".repeat(4_000)] });
    rig.outbox.close(PATIENCE).await;
    assert!(rig.warnings().is_empty(), "it was told already");
    fs::remove_file(filler).unwrap();
    rig.put(3).await.unwrap();
    rig.outbox.remove(&name(1));
    let rig = rig.reopened().await;
    assert_eq!(rig.kept.iter().map(|kept| kept.header.id.sequence).collect::<Vec<_>>(), [3]);
    println!("a write on a full disk was refused");
}

#[tokio::test]
async fn a_read_only_disk_is_named() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let script = "mkdir -m 700 \"$D/outbox\"; mount -o remount,ro \"$D\"";
        return on_its_own_file_system("outbox::tests::a_read_only_disk_is_named", script);
    };
    let rig = open(&StateFolder::open(Some(path.as_ref())).unwrap());
    let refused = rig.put(1).await.unwrap_err();
    assert!(matches!(refused, OutboxError::Folder(KeysError::ReadOnly { .. })), "{refused}");
    println!("a write on a read-only disk was refused");
}
