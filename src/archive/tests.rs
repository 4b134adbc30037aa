#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use tokio::sync::mpsc;

use super::*;
use crate::keys::{AnnouncerKeys, StateFolder};
use crate::sample::Sound;
use crate::seal;
use crate::wire::ClipId;

const PATIENCE: Duration = Duration::from_secs(20);
const ALL: Retention = Retention { age: Duration::from_secs(86_400 * 365), bytes: u64::MAX };
/// 2026-11-18 11:06:40 UTC.
const CREATED_UNIX_MS: u64 = 1_795_000_000_000;

struct Rig {
    archive: Archive,
    folder: PathBuf,
    keys: AnnouncerKeys,
    /// The time on this machine's clock.
    wall_unix_ms: Arc<AtomicU64>,
    told: mpsc::Receiver<Event>,
}

fn open(folder: &Path, retention: Retention) -> Rig {
    let (events, told) = Events::channel();
    let wall_unix_ms = Arc::new(AtomicU64::new(CREATED_UNIX_MS));
    let shown = wall_unix_ms.clone();
    let wall = Wall::new(move || UNIX_EPOCH + Duration::from_millis(shown.load(Ordering::Relaxed)));
    let archive = Archive::open_by(&folder.join("archive"), retention, events, wall).unwrap();
    let state = StateFolder::open(Some(&folder.join("state"))).unwrap();
    let keys = AnnouncerKeys::load_or_create(&state).unwrap();
    Rig { archive, folder: folder.join("archive"), keys, wall_unix_ms, told }
}

impl Rig {
    /// Archives a clip, signed or not, made `after_s` seconds after the first.
    async fn keep(&self, sequence: u64, after_s: u64, signed: bool) {
        let created_unix_ms = CREATED_UNIX_MS + after_s * 1_000;
        self.wall_unix_ms.store(created_unix_ms, Ordering::Relaxed);
        self.keep_dated(sequence, created_unix_ms, signed).await;
    }

    /// Like [`Self::keep`], for a clip with this date.
    async fn keep_dated(&self, sequence: u64, created_unix_ms: u64, signed: bool) {
        let samples = (0..4_000).map(|n| (n as f32 * 0.01 * sequence as f32).sin() / 2.0).collect();
        let clip = Clip::encode(&Sound { rate_hz: 8_000, samples }).unwrap();
        let header = ClipHeader {
            id: ClipId { epoch: 0xAB, sequence },
            created_unix_ms,
            expires_unix_ms: created_unix_ms + 60_000,
            format: clip.format(),
            sha256: *clip.sha256(),
            priority: Default::default(),
            zones: vec!["gym".into()],
        };
        let encoded = header.encode();
        let signature = if signed { seal::sign(&self.keys, &encoded).to_vec() } else { vec![] };
        let announcer = signed.then(|| *self.keys.id().as_bytes());
        self.archive.keep(&header, &encoded, &signature, announcer, &clip);
        self.archive.close(PATIENCE).await;
    }

    fn wavs(&self) -> Vec<PathBuf> {
        let paths = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut wavs: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "wav")).collect();
        wavs.sort();
        wavs
    }

    fn log(&self) -> PathBuf {
        self.folder.join("announcements-202611.jsonl")
    }

    fn lines(&self) -> Vec<Line> {
        let log = fs::read_to_string(self.log()).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn warnings(&mut self) -> usize {
        std::iter::from_fn(|| self.told.try_recv().ok())
            .filter(|it| matches!(it, Event::Warning { .. }))
            .count()
    }
}

fn failed(sequence: u64) -> Event {
    let clip = ClipId { epoch: 0xAB, sequence }.to_string();
    Event::Failed { clip, station: "a".into(), outcome: Outcome::Missed, reason: "gone".into() }
}

#[tokio::test]
async fn an_announcement_is_a_file_and_a_line_and_its_outcomes_are_lines() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), ALL);
    rig.keep(1, 0, true).await;
    rig.archive.note(&failed(1));
    rig.archive.close(PATIENCE).await;
    let [wav] = &rig.wavs()[..] else { panic!("{:?}", rig.wavs()) };
    let name = wav.file_name().unwrap().to_str().unwrap();
    let who = rig.keys.id().fingerprint().to_string().replace('-', "");
    assert!(name.starts_with(&format!("20261118T110640.000Z-{who}-")), "{name}");
    let [Line::Announcement { file, zones, .. }, Line::Outcome { file: of, outcome, station, .. }] =
        &rig.lines()[..]
    else {
        panic!("{:?}", rig.lines())
    };
    assert_eq!((file.as_str(), of.as_deref(), &zones[..]), (name, Some(name), &["gym".to_owned()][..]));
    assert_eq!((station.as_str(), *outcome), ("a", Outcome::Missed));
    let good = verify(wav, None).unwrap();
    assert_eq!((good.signer, good.station), (rig.keys.id().fingerprint(), None));
    assert_eq!(good.created_unix_ms, CREATED_UNIX_MS);
    verify(wav, Some(&good.signer.to_string())).unwrap();
    assert!(matches!(verify(wav, Some("xxxx")), Err(VerifyError::Signer(_))));
}

#[tokio::test]
async fn whatever_is_changed_is_not_good() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), ALL);
    rig.keep(1, 0, true).await;
    let wav = rig.wavs().remove(0);
    let (whole, log) = (fs::read(&wav).unwrap(), fs::read(rig.log()).unwrap());
    for at in (0..whole.len()).step_by(37) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&wav, flipped).unwrap();
        assert!(matches!(verify(&wav, None), Err(VerifyError::Clip(_))), "byte {at}");
    }
    fs::write(&wav, [&whole[..], b"x"].concat()).unwrap();
    assert!(matches!(verify(&wav, None), Err(VerifyError::Clip(_))));
    fs::write(&wav, &whole).unwrap();
    let text = String::from_utf8(log.clone()).unwrap();
    let signature = text.split("signature\":\"").nth(1).unwrap()[..128].to_owned();
    for (other, what) in [
        (text.replace(&signature, &signature.chars().rev().collect::<String>()), "signature"),
        (text.replace(&signature, ""), "unsigned"),
        (text.replace("announcement", "nothing"), "gone"),
    ] {
        assert_ne!(other, text);
        fs::write(rig.log(), other).unwrap();
        match (what, verify(&wav, None).unwrap_err()) {
            ("signature", VerifyError::Signature(_))
            | ("unsigned", VerifyError::Unsigned)
            | ("gone", VerifyError::NotInLog(_)) => {}
            (what, other) => panic!("{what}: {other}"),
        }
    }
    fs::write(rig.log(), log).unwrap();
    verify(&wav, None).unwrap();
}

#[tokio::test]
async fn what_nobody_signed_is_not_good() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), ALL);
    rig.keep(1, 0, false).await;
    let wav = rig.wavs().remove(0);
    assert!(wav.to_string_lossy().contains("-open-"));
    assert!(matches!(verify(&wav, None), Err(VerifyError::Unsigned)));
}

#[tokio::test]
async fn a_log_torn_at_every_byte_goes_on_with_whole_lines() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), ALL);
    rig.keep(1, 0, true).await;
    rig.keep(2, 1, true).await;
    let whole = fs::read(rig.log()).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in (first..whole.len()).step_by(29) {
        fs::write(rig.log(), &whole[..length]).unwrap();
        fs::write(rig.folder.join("20261118T110640.000Z-x.wav.part"), "half").unwrap();
        let rig = open(home.path(), ALL);
        rig.keep(3, 2, true).await;
        let clips: Vec<_> = rig
            .lines()
            .into_iter()
            .map(|line| match line {
                Line::Announcement { clip, .. } | Line::Outcome { clip, .. } => clip,
                Line::Talkback { .. } => panic!("nobody talked back"),
            })
            .collect();
        assert_eq!(clips, ["000000ab-1", "000000ab-3"], "cut at {length}");
        assert!(!rig.folder.join("20261118T110640.000Z-x.wav.part").exists());
    }
}

#[tokio::test]
async fn the_oldest_go_first_by_bytes_and_by_age_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), Retention { bytes: 30_000, ..ALL });
    let theirs = rig.folder.join("20261118-my-own.wav");
    fs::write(&theirs, "mine").unwrap();
    for sequence in 1..=8 {
        rig.keep(sequence, sequence, true).await;
    }
    let left: Vec<_> = rig.wavs().into_iter().filter(|path| *path != theirs).collect();
    assert!(left.len() == 2 || left.len() == 3, "{left:?}");
    assert!(left.last().unwrap().to_string_lossy().contains("T110648"));
    assert!(theirs.exists());

    let home = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let rig = open(home.path(), Retention { age: day * 40, ..ALL });
    rig.keep(1, 0, true).await;
    rig.keep(2, 86_400 * 30, true).await;
    assert_eq!(rig.wavs().len(), 2);
    rig.keep(3, 86_400 * 50, true).await;
    assert_eq!(rig.wavs().len(), 2);
    assert!(!rig.wavs()[0].to_string_lossy().contains("20261118"));
    assert!(rig.log().exists(), "the month of its log is not over for 40 days");
    rig.keep(4, 86_400 * 90, true).await;
    assert!(!rig.log().exists());
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_years_does_not_empty_the_archive() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), ALL);
    for sequence in 1..=20 {
        rig.keep(sequence, sequence, true).await;
    }
    rig.keep(21, 86_400 * 365 * 50, true).await;
    assert!(rig.wavs().len() >= 21 - MAX_REMOVED, "{}", rig.wavs().len());
}

#[tokio::test]
async fn nobody_elses_date_decides_what_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let rig = open(home.path(), Retention { age: day * 40, ..ALL });
    rig.keep(1, 0, true).await;
    let own = rig.wavs();
    // 2001, 1970, and two centuries from now.
    for (sequence, dated_unix_ms) in [(2, 1_000_000_000_000), (3, 5), (4, 8_000_000_000_000)] {
        rig.wall_unix_ms.fetch_add(1_000, Ordering::Relaxed);
        rig.keep_dated(sequence, dated_unix_ms, true).await;
    }
    rig.keep(5, 86_400, true).await;
    let wavs = rig.wavs();
    assert_eq!((wavs.len(), &wavs[0]), (5, &own[0]), "{wavs:?}");
    assert!(wavs.iter().all(|wav| wav.to_string_lossy().contains("archive/202611")), "{wavs:?}");
    let filed = verify(&wavs[1], None).unwrap();
    assert_eq!((filed.created_unix_ms, filed.filed_unix_ms), (1_000_000_000_000, CREATED_UNIX_MS + 1_000));
    let dates: Vec<u64> = rig
        .lines()
        .iter()
        .map(|line| match line {
            Line::Announcement { created_unix_ms, .. } => *created_unix_ms,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(dates[1..4], [1_000_000_000_000, 5, 8_000_000_000_000], "the log has what was claimed");
    // Their time of arrival does get them removed.
    rig.keep(6, 86_400 * 60, true).await;
    assert_eq!(rig.wavs().len(), 1);
}

#[tokio::test]
async fn what_was_filed_before_the_clock_was_set_is_not_taken_for_old() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), ALL);
    rig.wall_unix_ms.store(2_000, Ordering::Relaxed);
    rig.keep_dated(1, 2_000, true).await;
    rig.keep(2, 0, true).await;
    let names: Vec<String> = rig.wavs().iter().map(|wav| wav.display().to_string()).collect();
    assert!(names.len() == 2 && names[0].contains("archive/19700101T000002"), "{names:?}");
    assert!(names[1].contains("archive/20261118T"), "{names:?}");
    assert!(rig.log().exists() && rig.folder.join("announcements-197001.jsonl").exists());
}

#[test]
fn no_file_is_written_over_by_a_namesake() {
    let home = tempfile::tempdir().unwrap();
    let write = |content: &[u8]| files::write_whole(home.path(), "same", content).unwrap();
    assert_eq!(
        (write(b"one"), write(b"two"), write(b"three")),
        ("same.wav".into(), "same-2.wav".into(), "same-3.wav".into())
    );
    assert_eq!(
        (write(b"one"), write(b"two")),
        ("same.wav".into(), "same-2.wav".into()),
        "it is there already"
    );
    let precious = home.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    symlink(&precious, home.path().join("other.wav.part")).unwrap();
    symlink(&precious, home.path().join("other-2.wav")).unwrap();
    assert_eq!(files::write_whole(home.path(), "other", b"sound").unwrap(), "other-3.wav");
    symlink(&precious, home.path().join("announcements-202611.jsonl")).unwrap();
    files::append(&home.path().join("announcements-202611.jsonl"), "{}\n".into()).unwrap_err();
    assert_eq!(fs::read(&precious).unwrap(), b"mine");
    assert_eq!(fs::read(home.path().join("same.wav")).unwrap(), b"one");
}

#[tokio::test]
async fn a_signer_whom_nobody_knows_is_named_and_not_good() {
    let home = tempfile::tempdir().unwrap();
    let rig = open(home.path(), ALL);
    rig.keep(1, 0, true).await;
    let wav = &rig.wavs()[0];
    let signer = rig.keys.id().fingerprint();
    let said = verify_known(wav, None, &[]).unwrap_err().to_string();
    assert!(said.contains(&format!("signed by {signer}, whom this machine does not know")), "{said}");
    assert!(said.contains("--announcer"), "{said}");
    verify_known(wav, None, &[signer]).unwrap();
    verify_known(wav, Some(&signer.to_string()), &[]).unwrap();
}

#[tokio::test]
async fn a_full_or_read_only_disk_is_told_once_and_mends() {
    let Some(path) = std::env::var_os("BULLHORN_TEST_FOLDER") else {
        let home = tempfile::tempdir().unwrap();
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let script =
            "mount -t tmpfs -o size=64k,mode=0700 tmpfs \"$D\"; exec \"$0\" --exact \"$1\" --nocapture";
        let result = Command::new("unshare")
            .args([if root { "-m" } else { "-rm" }, "sh", "-ec", script])
            .arg(std::env::current_exe().unwrap())
            .arg("archive::tests::a_full_or_read_only_disk_is_told_once_and_mends")
            .env("D", home.path())
            .env("BULLHORN_TEST_FOLDER", home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&result.stdout);
        assert!(result.status.success(), "{said}{}", String::from_utf8_lossy(&result.stderr));
        assert!(said.contains("1 passed") && said.contains("was told"), "{said}");
        return;
    };
    let mut rig = open(Path::new(&path), ALL);
    rig.keep(1, 0, true).await;
    assert_eq!(rig.warnings(), 0);
    let filler = Path::new(&path).join("filler");
    fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    rig.keep(2, 1, true).await;
    rig.keep(3, 2, true).await;
    assert_eq!((rig.warnings(), rig.wavs().len()), (1, 1));
    fs::remove_file(filler).unwrap();
    rig.keep(4, 3, true).await;
    assert_eq!((rig.warnings(), rig.wavs().len()), (0, 2));
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&path).status();
        assert!(status.unwrap().success());
    };
    remount("ro");
    rig.keep(5, 4, true).await;
    assert_eq!((rig.warnings(), rig.wavs().len()), (1, 2));
    remount("rw");
    rig.keep(6, 5, true).await;
    assert_eq!((rig.warnings(), rig.wavs().len()), (0, 3));
    for wav in rig.wavs() {
        verify(&wav, None).unwrap();
    }
    println!("a full disk was told");
}
