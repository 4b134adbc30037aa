//! Inviting, joining and shutting out, as a user does it with the real program.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::hallway::{BULLHORN, Program, file, wavs};
use crate::support::wav::Spec;
use data_encoding::{BASE32_NOPAD, BASE64, HEXLOWER};
use tempfile::TempDir;

/// The states of an announcer, and of a station on another machine, and a page.
struct Machines {
    home: TempDir,
}

impl Machines {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Spec::mono(16, 8_000).write(home.path(), 800);
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn page(&self) -> OsString {
        file(&self.path("tones-16bit-8000Hz-mono.wav"))
    }

    fn announce(&self, state: &str, more: &[&str]) -> Vec<OsString> {
        let options = ["announce", "--listen", "127.0.0.1:0", "--state"].map(OsString::from);
        let rest = [self.path(state).into_os_string(), "--input".into(), self.page()];
        options.into_iter().chain(rest).chain(more.iter().map(OsString::from)).collect()
    }

    fn announcer(&self, state: &str) -> (Program, String) {
        let mut announcer = Program::start("the announcer", self.announce(state, &[]), &[]);
        let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
        (announcer, address)
    }

    fn speaker(&self, state: &str, address: &str, name: &str, more: &[&str]) -> Vec<OsString> {
        let options = ["speaker", address, "--name", name, "--state"].map(OsString::from);
        let rest = [self.path(state).into_os_string(), "--output".into(), file(&self.path("played"))];
        options.into_iter().chain(rest).chain(more.iter().map(OsString::from)).collect()
    }

    fn station(&self, state: &str, address: &str, name: &str, more: &[&str]) -> Program {
        fs::create_dir_all(self.path("played")).unwrap();
        Program::start(name, self.speaker(state, address, name, more), &[])
    }

    /// Runs a command to its end, and returns status, output and complaints.
    fn run(&self, state: &str, arguments: &[&str]) -> (i32, String, String) {
        let all = arguments.iter().map(OsString::from).chain(["--state".into(), self.path(state).into()]);
        ended(Program::start_prose(arguments[0], all, &[]))
    }

    /// Runs `bullhorn invite`, and returns what it prints and the invite in it.
    fn invite(&self, state: &str, more: &[&str]) -> (String, String) {
        let (code, line, _) = self.run(state, &[&["invite"], more].concat());
        assert_eq!(code, 0);
        let invite = line.split_whitespace().last().unwrap().to_owned();
        assert!(line.starts_with("bullhorn speaker ") && line.contains(" --invite bh1"), "{line}");
        (line, invite)
    }
}

fn ended(mut program: Program) -> (i32, String, String) {
    program.end_input();
    let code = program.exit_code();
    let complaints = program.complaints();
    assert!(!complaints.contains("panicked"), "{complaints}");
    (code, program.rest().join("\n"), complaints)
}

fn page(announcer: &mut Program) -> u64 {
    announcer.enter();
    announcer.wait_for("done")["played"].as_u64().unwrap()
}

#[test]
fn a_station_joins_by_the_line_and_later_without() {
    let machines = Machines::new();
    let mut first = Program::start_prose("the announcer", machines.announce("office", &[]), &[]);
    let line = first.wait_for_line("--invite bh1");
    let address = first.wait_for_line("listening on ").rsplit(' ').next().unwrap().to_owned();
    let port = address.rsplit(':').next().unwrap();
    assert!(line.starts_with("bullhorn speaker ") && line.contains(&format!(":{port} --invite ")), "{line}");
    let invite = line.split_whitespace().last().unwrap().to_owned();
    assert_eq!(machines.invite("office", &[]).0.trim_end(), line.trim_end(), "it is printed again");
    for (path, mode) in [("office", 0o700), ("office/announcer.key", 0o600), ("office/invite", 0o600)] {
        assert_eq!(fs::metadata(machines.path(path)).unwrap().mode() & 0o777, mode, "{path}");
    }

    let mut station = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    station.wait_for("connected");
    first.wait_for_line("hall-1");
    first.enter();
    first.wait_for_line("1 of 1 stations played it");
    station.wait_for("played");
    station.kill();
    // The secret is nowhere on the station's disk.
    let secret = secret_of(&machines.path("office"), "invite", "");
    for kept in files_below(&machines.path("hall")) {
        let content = fs::read(&kept).unwrap();
        assert!(!String::from_utf8_lossy(&content).contains(&secret), "{}", kept.display());
    }

    // Without the invite, after a power cut of the station, and of the announcer.
    let mut station = machines.station("hall", &address, "hall-1", &[]);
    station.wait_for("connected");
    first.kill();
    station.kill();
    let options = machines.announce("office", &[]);
    let listen: Vec<OsString> = options
        .into_iter()
        .map(|option| if option == "127.0.0.1:0" { address.clone().into() } else { option })
        .collect();
    let mut again = Program::start("the announcer, restarted,", listen, &[]);
    again.wait_for("listening");
    let mut station = machines.station("hall", &address, "hall-1", &[]);
    station.wait_for("connected");
    again.wait_for_one("station-joined", "station", "hall-1");
    assert_eq!(page(&mut again), 1);
    again.end_input();
    assert_eq!(again.exit_code(), 0);
}

#[test]
fn invites_are_made_anew_and_for_how_long_is_said() {
    let machines = Machines::new();
    let (_, first) = machines.invite("office", &[]);
    assert_eq!(machines.invite("office", &[]).1, first);
    let (_, second) = machines.invite("office", &["--new", "--valid", "30m"]);
    assert_ne!(second, first);
    assert_eq!(machines.invite("office", &[]).1, second);
    assert!(machines.run("office", &["invite"]).2.contains("good until "));
    for bad in ["0m", "30", "x", "366d", "-1h"] {
        let (code, _, said) = machines.run("office", &["invite", "--new", &format!("--valid={bad}")]);
        assert!(code == 2 && said.contains("30m"), "{bad}: {said}");
    }
    assert_eq!(machines.invite("office", &[]).1, second, "what was refused changed nothing");
}

#[test]
fn stations_are_listed_and_shut_out() {
    let machines = Machines::new();
    assert_eq!(machines.run("office", &["stations"]).0, 0);
    let (mut announcer, address) = machines.announcer("office");
    let (_, invite) = machines.invite("office", &[]);
    let mut station = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    announcer.wait_for_one("station-joined", "station", "hall-1");
    let (_, list, _) = machines.run("office", &["stations"]);
    assert!(list.contains("hall-1") && list.contains("20"), "name and times: {list}");
    let (code, _, said) = machines.run("office", &["stations", "remove", "hall-9"]);
    assert!(code == 1 && said.contains("no station named hall-9"), "{said}");

    // Another key does not get the name.
    let mut other = machines.station("thief", &address, "hall-1", &["--invite", &invite]);
    let reason = other.wait_for("waiting")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("belongs to another station's key"), "{reason}");
    other.kill();

    let (code, said, _) = machines.run("office", &["stations", "remove", "hall-1"]);
    assert!(code == 0 && said.contains("hall-1 is shut out"), "{said}");
    assert_eq!(announcer.wait_for_one("station-left", "station", "hall-1")["reason"], "it was removed");
    station.wait_for("waiting");
    station.kill();
    let mut back = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    let reason = back.wait_for("waiting")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("removed there, or its invite has expired or was replaced"), "{reason}");
    back.kill();
    let (_, list, _) = machines.run("office", &["stations"]);
    assert!(!list.contains("hall-1"), "{list}");
    let (_, invite) = machines.invite("office", &[]);
    let mut back = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    back.wait_for("connected");
    assert_eq!(page(&mut announcer), 1);
}

#[test]
fn invites_that_are_none_are_refused_in_a_sentence() {
    let machines = Machines::new();
    let (_announcer, address) = machines.announcer("office");
    let (_, good) = machines.invite("office", &[]);
    let swapped = {
        let mut letters: Vec<char> = good.chars().collect();
        letters[40] = if letters[40] == 'a' { 'b' } else { 'a' };
        letters.into_iter().collect::<String>()
    };
    for (bad, why) in [
        ("hello", "this is no invite"),
        ("", "this is no invite"),
        (&good[..50], "cut short"),
        (&format!("{good}a"), "too long"),
        (&swapped, "typing error"),
        (&format!("{}!{}", &good[..20], &good[21..]), "a character that none has"),
        (&format!("bh2{}", &good[3..]), "newer bullhorn"),
    ] {
        let arguments = machines.speaker("hall", &address, "hall-1", &["--invite", bad]);
        let (code, output, said) = ended(Program::start_prose("the station", arguments, &[]));
        assert!(code == 2 && said.contains(why), "{bad:?}: status {code}: {said}");
        assert!(bad.len() < 10 || !(said + &output).contains(bad), "it is not quoted");
    }
    assert!(!machines.path("hall").exists(), "nothing was made");
    // Another announcer's invite.
    let (_, foreign) = machines.invite("elsewhere", &[]);
    let mut station = machines.station("hall", &address, "hall-1", &["--invite", &foreign]);
    let reason = station.wait_for("waiting")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("is not the announcer that made the invite"), "{reason}");
    station.kill();
    // An invite that was replaced.
    machines.invite("office", &["--new"]);
    let mut station = machines.station("hall", &address, "hall-1", &["--invite", &good]);
    let reason = station.wait_for("waiting")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("its invite has expired or was replaced"), "{reason}");
    // The announcer is somebody else's, and nobody invited this station.
    let arguments = machines.speaker("hall", "192.0.2.1:7766", "hall-2", &[]);
    let (code, _, said) = ended(Program::start_prose("the station", arguments, &[]));
    assert!(
        code == 1 && said.contains("has not joined 192.0.2.1:7766: run `bullhorn invite` there"),
        "{said}"
    );
}

/// The announcer was set up from scratch: its stations refuse it with a clear message, and report how to accept it.
#[test]
fn a_changed_announcer_is_refused_until_it_invites() {
    let machines = Machines::new();
    let (mut announcer, address) = machines.announcer("office");
    let (_, invite) = machines.invite("office", &[]);
    let mut station = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    station.wait_for("connected");
    announcer.kill();
    station.kill();
    let options = machines.announce("other", &[]).into_iter();
    let listen: Vec<OsString> =
        options.map(|option| if option == "127.0.0.1:0" { address.clone().into() } else { option }).collect();
    let mut other = Program::start("another announcer", listen, &[]);
    other.wait_for("listening");
    let pins = fs::read(machines.path("hall/station-hall-1/announcers.toml")).unwrap();
    let mut station = machines.station("hall", &address, "hall-1", &[]);
    let reason = station.wait_for("waiting")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("HAS CHANGED ITS KEY") && reason.contains("--invite bh1"), "{reason}");
    station.kill();
    assert_eq!(fs::read(machines.path("hall/station-hall-1/announcers.toml")).unwrap(), pins);
    assert_eq!(page(&mut other), 0);
    let (_, invite) = machines.invite("other", &[]);
    let mut station = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    station.wait_for("connected");
    assert_eq!(page(&mut other), 1);
}

#[test]
fn a_state_folder_that_cannot_be_used_is_said_and_left_alone() {
    let machines = Machines::new();
    machines.invite("office", &[]);
    let office = machines.path("office");
    let announce = || ended(Program::start_prose("bullhorn", machines.announce("office", &["--once"]), &[]));
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    // World-readable: the message contains the command that fixes it.
    for (path, open, right) in [(office.clone(), 0o755, 0o700), (office.join("announcer.key"), 0o644, 0o600)]
    {
        set(&path, open);
        let (code, _, said) = announce();
        let mend = format!("chmod {right:o} '{}'", path.display());
        assert!(code == 1 && said.contains(&mend), "{said}");
        assert!(Command::new("sh").args(["-c", &mend]).status().unwrap().success());
    }
    // A key file cut short, for either role.
    let key = fs::read(office.join("announcer.key")).unwrap();
    fs::write(office.join("announcer.key"), &key[..key.len() / 2]).unwrap();
    let (code, _, said) = announce();
    assert!(code == 1 && said.contains("announcer.key is cut short"), "{said}");
    assert_eq!(fs::read(office.join("announcer.key")).unwrap(), key[..key.len() / 2]);
    fs::write(office.join("announcer.key"), &key).unwrap();
    assert_eq!(announce().0, 1, "nobody is listening, and it runs");
    fs::create_dir(machines.path("played")).unwrap();
    let station = machines.path("hall/station-hall-1");
    fs::create_dir_all(&station).unwrap();
    set(&machines.path("hall"), 0o700);
    set(&station, 0o700);
    fs::write(station.join("station.key"), "bullhorn station-key 1\nx25519 00").unwrap();
    set(&station.join("station.key"), 0o600);
    let arguments = machines.speaker("hall", "127.0.0.1:9", "hall-1", &[]);
    let (code, _, said) = ended(Program::start_prose("the station", arguments, &[]));
    assert!(code == 1 && said.contains("station.key is cut short"), "{said}");
    // A file in place of the folder.
    fs::write(machines.path("file"), "").unwrap();
    let (code, _, said) = machines.run("file", &["invite"]);
    assert!(code == 1 && said.contains("is not a folder"), "{said}");
}

/// Runs `bullhorn invite` in a mount namespace where its folder is a small file system, after `script`.
fn on_its_own_file_system(folder: &Path, script: &str) -> (i32, String) {
    fs::create_dir_all(folder).unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let script = format!(
        "mount -t tmpfs -o size=16k,mode=0700 tmpfs \"$1\"; {script}\nexec \"$0\" invite --state \"$1\""
    );
    let mut command = Command::new("unshare");
    command.args([if root { "-m" } else { "-rm" }, "sh", "-ec", &script, BULLHORN]).arg(folder);
    let (code, _, said) = ended(Program::start_command("bullhorn", command, &[]));
    (code, said)
}

#[test]
fn full_and_read_only_disks_are_said() {
    let machines = Machines::new();
    let folder = machines.path("disk");
    let full = "head -c 1M /dev/zero > \"$1/filler\" 2>/dev/null || :";
    let (code, said) = on_its_own_file_system(&folder, full);
    assert!(code == 1 && said.contains("the disk is full; nothing was changed"), "{said}");
    let (code, said) = on_its_own_file_system(&folder, "mount -o remount,ro \"$1\"");
    assert!(code == 1 && said.contains("the file system is read-only"), "{said}");
    assert_eq!(on_its_own_file_system(&folder, "").0, 0, "it is the disk");
}

/// Root may read everything, unless it lacks two capabilities.
#[test]
fn an_unreadable_state_folder_is_said() {
    let machines = Machines::new();
    machines.invite("office", &[]);
    fs::set_permissions(machines.path("office/announcer.key"), fs::Permissions::from_mode(0o000)).unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new(if root { "setpriv" } else { "env" });
    if root {
        command.arg("--bounding-set=-dac_override,-dac_read_search");
    }
    command.args([BULLHORN, "invite", "--state"]).arg(machines.path("office"));
    let (code, _, said) = ended(Program::start_command("bullhorn", command, &[]));
    assert!(code == 1 && said.contains("permission denied"), "{said}");
}

#[test]
fn open_mode_works_and_both_sides_say_so() {
    let machines = Machines::new();
    let mut announcer = Program::start("the announcer", machines.announce("office", &["--open"]), &[]);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let mut station = machines.station("hall", &address, "hall-1", &["--open"]);
    for program in [&mut announcer, &mut station] {
        let warning = program.wait_for("warning")["message"].as_str().unwrap().to_owned();
        assert!(warning.contains("OPEN MODE") && warning.contains("anybody on this network"), "{warning}");
    }
    announcer.wait_for_one("station-joined", "station", "hall-1");
    assert_eq!(page(&mut announcer), 1);
    assert!(!machines.path("office").exists() && !machines.path("hall").exists(), "no keys are made");
}

#[test]
fn one_open_and_one_secured_side_are_told() {
    let machines = Machines::new();
    let told = "one of them runs open, the other secured";
    let (mut secured, address) = machines.announcer("office");
    let mut open = machines.station("hall", &address, "hall-1", &["--open"]);
    assert!(open.wait_for("waiting")["reason"].as_str().unwrap().contains(told));
    open.kill();
    secured.wait_for_complaint(told);
    secured.end_input();
    assert_eq!(secured.exit_code(), 0);

    let mut announcer = Program::start("the announcer", machines.announce("office", &["--open"]), &[]);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let (_, invite) = machines.invite("office", &[]);
    let mut station = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    assert!(station.wait_for("waiting")["reason"].as_str().unwrap().contains(told));
    announcer.wait_for_complaint(told);
    assert_eq!(page(&mut announcer), 0);
    announcer.end_input();
    announcer.exit_code();
}

#[test]
fn two_announcers_do_not_share_a_state_folder() {
    let machines = Machines::new();
    let (mut first, _) = machines.announcer("office");
    let (code, _, said) = ended(Program::start_prose("a second", machines.announce("office", &[]), &[]));
    assert!(code == 1 && said.contains("an announcer runs with"), "{said}");
    first.kill();
    machines.announcer("office");
}

/// A secret in hex from the lines of a file, found by the word before it.
fn secret_of(folder: &Path, name: &str, word: &str) -> String {
    let content = fs::read_to_string(folder.join(name)).unwrap();
    let line = content.lines().skip(1).find(|line| line.starts_with(word)).unwrap();
    line.trim_start_matches(word).split_whitespace().next().unwrap().to_owned()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn no_output_holds_a_secret() {
    let machines = Machines::new();
    let trace = [("RUST_LOG".to_owned(), "trace".to_owned())];
    let (_, invite) = machines.invite("office", &[]);
    let invite_secret = secret_of(&machines.path("office"), "invite", "");
    let mut announcer = Program::start("the announcer", machines.announce("office", &[]), &trace);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    fs::create_dir_all(machines.path("played")).unwrap();
    let arguments = machines.speaker("hall", &address, "hall-1", &["--invite", &invite]);
    let mut station = Program::start("hall-1", arguments, &trace);
    announcer.wait_for_one("station-joined", "station", "hall-1");
    assert_eq!(page(&mut announcer), 1);
    // Failures too: a second key for the name, an unknown key, and a removal.
    for (state, name) in [("thief", "hall-1"), ("stranger", "hall-3")] {
        let arguments = machines.speaker(state, &address, name, &["--invite", &invite]);
        if name == "hall-3" {
            machines.run("office", &["stations", "remove", "hall-1"]);
        }
        let mut rogue = Program::start(name, arguments, &trace);
        rogue.wait_for("waiting");
        rogue.kill();
        keeps_secrets(&machines, &invite, &invite_secret, &mut rogue);
    }
    announcer.end_input();
    announcer.exit_code();
    station.kill();
    keeps_secrets(&machines, &invite, &invite_secret, &mut announcer);
    keeps_secrets(&machines, &invite, &invite_secret, &mut station);
    for arguments in [&["--help"][..], &["announce", "--help"], &["speaker", "--help"], &["invite", "--help"]]
    {
        let mut help = Program::start_prose("help", arguments.iter().copied(), &trace);
        help.exit_code();
        keeps_secrets(&machines, &invite, &invite_secret, &mut help);
    }
    assert!(!wavs(&machines.path("played")).is_empty());
}

fn keeps_secrets(machines: &Machines, invite: &str, invite_secret: &str, program: &mut Program) {
    let said = program.rest().join("\n") + &program.complaints();
    let office = machines.path("office");
    let station = machines.path("hall/station-hall-1");
    let mut secrets = vec![
        invite_secret.to_owned(),
        secret_of(&office, "announcer.key", "ed25519 "),
        secret_of(&office, "announcer.key", "x25519 "),
        secret_of(&station, "station.key", "x25519 "),
    ];
    secrets.dedup();
    let lower = said.to_lowercase();
    assert!(!lower.contains(&invite[3..]), "the invite is in what was said");
    for hex in secrets {
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        let numbers: Vec<String> = bytes[..6].iter().map(u8::to_string).collect();
        for form in
            [hex[..16].to_owned(), BASE32_NOPAD.encode(&bytes)[..16].to_lowercase(), numbers.join(", ")]
        {
            assert!(!lower.contains(&form), "a secret is in what was said");
        }
        assert!(!said.contains(&BASE64.encode(&bytes)[..16]), "a secret is in what was said");
    }
}

#[test]
fn a_station_whose_disk_was_copied_is_named_on_both_sides() {
    let machines = Machines::new();
    let (mut announcer, address) = machines.announcer("office");
    let (_, invite) = machines.invite("office", &[]);
    let mut first = machines.station("hall", &address, "hall-1", &["--invite", &invite]);
    announcer.wait_for_one("station-joined", "station", "hall-1");
    first.wait_for("connected");
    let copied = Command::new("cp").arg("-a").args([machines.path("hall"), machines.path("copy")]).status();
    assert!(copied.unwrap().success());
    let mut second = machines.station("copy", &address, "hall-1", &[]);
    second.wait_for("connected");
    let reason = first.wait_where("waiting for its place", |event| {
        event["event"] == "waiting" && event["reason"].as_str().unwrap().contains("same key")
    });
    assert!(reason["reason"].as_str().unwrap().contains("state folder was copied"), "{reason}");
    let warning = announcer.wait_for("warning");
    assert!(warning["message"].as_str().unwrap().contains("a second hall-1 at 127.0.0.1"), "{warning}");
    announcer.enter();
    assert_eq!(announcer.wait_for("done")["played"], 1);
    assert_eq!(second.wait_for("played")["outcome"], "played");
    // The first station is accepted again when the second is gone.
    second.kill();
    first.wait_for("connected");
}
