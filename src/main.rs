//! The `bullhorn` program: parse, dispatch, print the error chain, exit status.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bullhorn::announcer::{self, Summary};
use bullhorn::archive::{self, Archive, Verified};
use bullhorn::cli::{self, Cli, Role, StationsAction, VolumeOrOwn, ZonesAction};
use bullhorn::console::{self, Mode, Sounds};
use bullhorn::demo::Demo;
use bullhorn::devices::{self, Onlooker};
use bullhorn::event::{Command, Event, Events};
use bullhorn::invite::{self, Invite, InviteBook, InviteError};
use bullhorn::keys::{self, AnnouncerKeys, KnownStations, StateFolder, ZoneOrder};
use bullhorn::leaving::on_signals;
use bullhorn::loudspeaker::{Loudspeaker, Output};
use bullhorn::membership::Membership;
use bullhorn::microphone::{Input, Microphone, MicrophoneError};
use bullhorn::prepare::PrepareError;
use bullhorn::report;
use bullhorn::site::{self, Site};
use bullhorn::sound_file::STANDARD_INPUT;
use bullhorn::speaker;
use bullhorn::speaker::talkback::Talkback;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use zeroize::Zeroizing;

/// The exit status for a wrong command line.
const USAGE: u8 = 2;
/// How many commands can wait for the announcer.
const MAX_WAITING_COMMANDS: usize = 16;

/// The file in the state folder that names the microphone that worked last.
const WORKING_INPUT: &str = "input";
/// The folder in the state folder for talkback, if there is no archive.
const TALKBACK: &str = "talkback-clips";
/// A clip filed longer than this before or after its date was dated or filed by a wrong clock.
const MAX_ASTRAY_MS: u64 = 24 * 3_600_000;
/// The file in the state folder with the port that the announcer listened on last, for `bullhorn invite`.
const LAST_PORT: &str = "port";

/// The warning that both sides show when they run with `--open`.
const OPEN_WARNING: &str = "OPEN MODE: no keys, no encryption; anybody on this network can listen and speak. \
    Start both sides without --open to end this";

type Failure = Box<dyn Error>;

/// Talkback in open mode, without a folder to keep it in.
#[derive(Debug, thiserror::Error)]
#[error(
    "--talkback with --open needs --archive DIR: what is said is kept, and --open has no folder of its own for it"
)]
struct NeedsArchive;

/// Standard input cannot be both the sound and the keyboard.
#[derive(Debug, thiserror::Error)]
#[error("the sound from standard input is announced once: add --once")]
struct NeedsOnce;

/// An option that needs a terminal, where there is none.
#[derive(Debug, thiserror::Error)]
#[error("{option} is for the keyboard: start bullhorn at a terminal, without --events")]
struct NeedsTerminal {
    option: &'static str,
}

fn main() -> ExitCode {
    let cli = Cli::from_arguments();
    start_log();
    bullhorn::end_on_panic();
    let result = match cli.role {
        Role::Announce(options) => announce(options),
        Role::Speaker(options) => speak(options),
        Role::Invite(options) => invite(&options),
        Role::Stations(options) => stations(&options),
        Role::Zones(options) => zones(&options),
        Role::Verify(options) => verify(&options),
        Role::Devices => list_devices(),
        Role::Demo(options) => demonstrate(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("bullhorn: {}", bullhorn::error_chain(error.as_ref())));
            let is_usage = error.is::<InviteError>()
                || error.is::<PrepareError>()
                || error.is::<NeedsTerminal>()
                || error.is::<NeedsArchive>()
                || error.is::<NeedsOnce>()
                || error.is::<cli::ArgumentError>();
            if is_usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Writes one line to standard error, escaped for a terminal.
fn complain(line: &str) {
    // If standard error is closed, there is nowhere left to report this.
    let _ = writeln!(io::stderr(), "{}", report::escaped(line));
}

/// Logs warnings and errors, or what `RUST_LOG` asks for, to standard error.
fn start_log() {
    let wanted = std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty());
    let (filter, error) = match wanted.map(|wanted| wanted.parse::<Targets>()) {
        None => (Targets::new(), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (Targets::new(), Some(error)),
    };
    let filter = match filter.default_level() {
        Some(_) => filter,
        None => filter.with_default(LevelFilter::WARN),
    };
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(console::log).with_target(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    if let Some(error) = error {
        tracing::warn!(%error, "RUST_LOG is ignored: write it as info, or as bullhorn=debug");
    }
}

/// Makes room for a socket per station, and for connections not yet identified; many systems start with a limit of
/// 1,024.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::info!(%error, "cannot raise the limit of open sockets");
    }
}

fn announce(options: cli::Announce) -> Result<bool, Failure> {
    raise_descriptor_limit();
    let runtime = Runtime::new()?;
    let guard = runtime.enter();
    let mode = Mode::choose(options.events.is_some(), !options.once);
    let (speaking, preparation) = (&options.speaking, options.before.preparation());
    let is_live = speaking.live;
    for (is_asked, option) in
        [(speaking.hold, "--hold"), (speaking.review, "--review"), (speaking.sounds.is_some(), "--sounds")]
    {
        if is_asked && mode != Mode::Terminal {
            return Err(NeedsTerminal { option }.into());
        }
    }
    if options.input() == Input::File(STANDARD_INPUT.into()) && (!options.once || is_live) {
        return Err(NeedsOnce.into());
    }
    if speaking.talkback && options.open && options.archive.is_none() {
        return Err(NeedsArchive.into());
    }
    // A file may become shorter when it is trimmed, so it is checked when it is announced.
    options.length().map_or(Ok(()), |length| preparation.check(length))?;
    let sounds = speaking.sounds.as_deref().map(Sounds::open).transpose()?;
    let folder = match options.open {
        true => None,
        false => Some(StateFolder::open(options.state.folder.as_deref())?),
    };
    let microphone = open_microphone(&options.input(), folder.as_ref(), options.once)?;
    let is_judged_later = preparation.trims || options.seconds.is_some() || is_live;
    if let (Some(length), false) = (microphone.whole_length(), is_judged_later) {
        preparation.check(length)?;
    }
    let monitor = match speaking.review || speaking.talkback {
        true => Some(open_monitor(speaking.monitor.as_ref(), speaking.review)?.shared()),
        false => None,
    };
    let site = folder.as_ref().map(Site::open).transpose()?.map(Arc::new);
    let once = options.once.then(|| options.stations_to_wait_for());
    let (events, shown) = Events::channel();
    let keep = |folder| Archive::open(folder, options.retention.retention(), events.clone());
    let setup = console::Setup { mode, holds: speaking.hold, sounds };
    let archive = options.archive.as_deref().map(keep).transpose()?;
    let talkback = match (&monitor, &folder) {
        (Some(loudspeaker), folder) if speaking.talkback => {
            let own = folder.as_ref().map(|folder| folder.path().join(TALKBACK));
            let archive = match (&archive, own) {
                (Some(archive), _) => archive.clone(),
                (None, own) => keep(&own.ok_or(NeedsArchive)?)?,
            };
            Some(announcer::Hearing { loudspeaker: loudspeaker.clone(), archive })
        }
        _ => None,
    };
    let config = announcer::Config {
        length: options.length(),
        rate_hz: options.rate_hz,
        preparation,
        monitor: monitor.filter(|_| speaking.review),
        max_stations: options.max_stations,
        zones: options.zones,
        priority: options.priority,
        keep: options.keep,
        wait: options.wait,
        live: is_live,
        latency: options.speaking.latency,
        once,
        lines: mode != Mode::Terminal,
        site: site.clone(),
        archive,
        talkback,
    };
    let listen_on = options.listen;
    let ended = runtime.block_on(async {
        let listener = announcer::listen(listen_on)?;
        let port = listener.local_addr()?.port();
        if let Some(Err(error)) = folder.as_ref().map(|folder| folder.note(LAST_PORT, &port.to_string())) {
            tracing::warn!("cannot write down the port: {}", bullhorn::error_chain(&error));
        }
        match &site {
            // A secret does not belong among events that a script might keep.
            Some(site) if site.stations().is_empty() && mode != Mode::Json => {
                let line = invitation(&site.invite()?, Some(port));
                writeln!(io::stdout(), "no station has joined yet; to add one, run there:\n{}", *line)?;
            }
            _ => (),
        }
        let shutdown = on_signals()?;
        if site.is_none() {
            events.tell(Event::Warning { message: OPEN_WARNING.to_owned() });
        }
        for message in microphone.warnings() {
            events.tell(Event::Warning { message: message.clone() });
        }
        let (commands, asked) = mpsc::channel(MAX_WAITING_COMMANDS);
        // With `--once`, a line of input ends live speech.
        let reader = (once.is_none() || is_live).then(|| commands.clone());
        let console = tokio::spawn(console::run(shown, reader, setup));
        let summary = announcer::run(listener, microphone, config, asked, events, shutdown).await?;
        drop(commands);
        console.await??;
        Ok(summary.all_heard)
    });
    drop(guard);
    // Do not wait for a disk that hangs.
    runtime.shutdown_background();
    ended
}

fn speak(options: cli::Speaker) -> Result<bool, Failure> {
    // One thread is enough for a station and uses a third of the memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let name = options.station_name();
    let invite = options.invite.as_deref().map(str::parse::<Invite>).transpose()?;
    options.check_announcers()?;
    let targets: Vec<_> = options.announcers.iter().map(|it| (it.host.as_str(), it.port)).collect();
    let memberships: Vec<Option<Membership>> = match options.open {
        true => targets.iter().map(|_| None).collect(),
        false => {
            let folder = StateFolder::open(options.state.folder.as_deref())?;
            let all = Membership::open_all(&folder, &targets, &name, &options.zones, invite)?;
            all.into_iter().map(Some).collect()
        }
    };
    // All memberships share the station's own folder.
    let membership = memberships.first().and_then(Option::as_ref);
    let loudspeaker =
        open_loudspeaker(&options.output.unwrap_or_default(), options.emergency_unmutes, membership)?;
    let talks = match options.talkback.talkback {
        true => {
            let input = options.talkback.input.clone().unwrap_or_default();
            let microphone = open_microphone(&input, membership.map(Membership::own_folder), false)?;
            Some((microphone, Membership::begin_talkback(membership)?))
        }
        false => None,
    };
    let announcer = |(cli::Target { host, port }, membership)| speaker::Announcer { host, port, membership };
    let announcers = options.announcers.into_iter().zip(memberships).map(announcer).collect();
    let (events, shown) = Events::channel();
    let keep = |folder| Archive::open(folder, options.retention.retention(), events.clone());
    let archive = options.keep_clips.as_deref().map(keep).transpose()?;
    let (delay_us, volume) = (options.delay, options.volume);
    let mode = Mode::choose(options.events.is_some(), false);
    let (commands, talkback) = match talks {
        Some((microphone, epoch)) => {
            let (commands, asked) = mpsc::channel(MAX_WAITING_COMMANDS);
            let (length, lines) = (options.talkback.seconds, !io::stdin().is_terminal());
            let talkback = Talkback { microphone, length, commands: asked, lines, epoch };
            (Some(commands), Some(talkback))
        }
        None => (None, None),
    };
    if commands.is_some() && mode == Mode::Prose && io::stdin().is_terminal() {
        writeln!(io::stdout(), "press Enter to talk back")?;
    }
    let (zones, is_attended) = (options.zones, console::is_attended());
    let config =
        speaker::Config { announcers, name, zones, delay_us, volume, archive, talkback, is_attended };
    let ended = runtime.block_on(async {
        let shutdown = on_signals()?;
        if options.open {
            events.tell(Event::Warning { message: OPEN_WARNING.to_owned() });
        }
        let console = tokio::spawn(console::run(shown, commands, mode.into()));
        speaker::run(config, loudspeaker, events, shutdown).await?;
        console.await??;
        Ok(true)
    });
    drop(guard);
    // Do not wait for a disk that hangs.
    runtime.shutdown_background();
    ended
}

/// Opens the microphone. If it is missing, waits for it and shows it as faulty, unless somebody at the terminal may
/// have mistyped its name or a script that announces once must know.
fn open_microphone(input: &Input, folder: Option<&StateFolder>, once: bool) -> Result<Microphone, Failure> {
    if let Input::File(_) = input {
        return Ok(Microphone::open(input)?);
    }
    let name = input.to_string();
    let has_worked = folder.is_some_and(|folder| folder.holds(WORKING_INPUT, &name));
    match Microphone::open(input) {
        Err(MicrophoneError::Device(error)) if !once && Onlooker::here().waits(&error, has_worked) => {
            Ok(Microphone::await_device(input, MicrophoneError::Device(error))?)
        }
        opened => {
            let microphone = opened?;
            if let Some(Err(error)) = folder.map(|folder| folder.note(WORKING_INPUT, &name)) {
                tracing::warn!("cannot write down that {name} works: {}", bullhorn::error_chain(&error));
            }
            Ok(microphone)
        }
    }
}

/// Opens the loudspeaker through which the announcer listens. If it is only for talkback and missing, waits for it,
/// unless somebody at the terminal may have mistyped its name; talkback that arrives meanwhile is kept.
fn open_monitor(output: Option<&Output>, reviews: bool) -> Result<Loudspeaker, Failure> {
    let waits = |error: &_| !reviews && Onlooker::here().waits(error, output.is_none());
    Ok(Loudspeaker::open_for_station(output.unwrap_or(&Output::Default), false, waits)?)
}

/// Opens the loudspeaker. If it is missing while the station is on duty, waits for it and shows it as faulty, unless
/// somebody at the terminal may have mistyped its name.
fn open_loudspeaker(
    output: &Output,
    unmutes: bool,
    membership: Option<&Membership>,
) -> Result<Loudspeaker, Failure> {
    let name = output.to_string();
    let is_named = matches!(output, Output::Device(_));
    let has_worked = !is_named || membership.is_some_and(|member| member.has_played_on(&name));
    let waits = |error: &_| Onlooker::here().waits(error, has_worked);
    let loudspeaker = Loudspeaker::open_for_station(output, unmutes, waits)?;
    let works = is_named && loudspeaker.health().fault().is_none();
    if let Some(Err(error)) = membership.filter(|_| works).map(|member| member.note_output(&name)) {
        tracing::warn!("cannot write down that {name} works: {}", bullhorn::error_chain(&error));
    }
    Ok(loudspeaker)
}

/// The command to run on a station. `port` is the announcer's, where it is known.
fn invitation(invite: &Invite, port: Option<u16>) -> Zeroizing<String> {
    let host = gethostname::gethostname();
    let host = host.to_string_lossy();
    let target = match port {
        Some(port) if port != cli::DEFAULT_PORT => format!("{host}:{port}"),
        _ => host.into_owned(),
    };
    Zeroizing::new(format!("bullhorn speaker {target} --invite {}", *invite.to_line()))
}

fn invite(options: &cli::InviteOptions) -> Result<bool, Failure> {
    let folder = StateFolder::open(options.state.folder.as_deref())?;
    let keys = AnnouncerKeys::load_or_create(&folder)?;
    let book = InviteBook::new(&folder);
    let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let current = if options.new { None } else { book.current(&keys, now_unix_s)? };
    let invite = match current {
        Some(invite) => invite,
        None => book.issue(&keys, options.valid.unwrap_or(site::INVITE_VALIDITY), now_unix_s)?,
    };
    let port = folder.read(LAST_PORT)?.and_then(|port| std::str::from_utf8(&port).ok()?.parse().ok());
    writeln!(io::stdout(), "{}", *invitation(&invite, port))?;
    writeln!(io::stderr(), "good until {}", report::time(invite.expires_unix_s()))?;
    Ok(true)
}

fn stations(options: &cli::StationsOptions) -> Result<bool, Failure> {
    let folder = StateFolder::open(options.state.folder.as_deref())?;
    match &options.action {
        None => {
            if AnnouncerKeys::load(&folder)?.is_none() {
                let path = folder.path().display();
                writeln!(io::stderr(), "no announcer has run yet with the state folder {path}")?;
            }
            let known = KnownStations::open(&folder)?;
            io::stdout().write_all(report::stations(&known.all()).as_bytes())?;
        }
        Some(StationsAction::Volume { name, volume: VolumeOrOwn(volume) }) => {
            KnownStations::open(&folder)?.set_volume(name, *volume)?;
            let name = report::escaped(name);
            match volume {
                Some(volume) => {
                    writeln!(io::stdout(), "{name} plays at {volume} from its next announcement on")?
                }
                None => writeln!(io::stdout(), "{name} plays at its own --volume")?,
            }
        }
        Some(StationsAction::Remove { name }) => {
            let removed = invite::shut_out(&folder, name)?;
            let name = report::escaped(&removed.name);
            writeln!(io::stdout(), "{name} is shut out, and the current invite is worth nothing any more")?;
        }
    }
    Ok(true)
}

fn zones(options: &cli::ZonesOptions) -> Result<bool, Failure> {
    let folder = StateFolder::open(options.state.folder.as_deref())?;
    let known = KnownStations::open(&folder)?;
    let mut order = ZoneOrder::open(Some(&folder))?;
    if let Some(ZonesAction::Order { zones }) = &options.action {
        order.put_first(zones, &known.zones())?;
    }
    io::stdout().write_all(report::zones(&order, &known.all()).as_bytes())?;
    Ok(true)
}

fn verify(options: &cli::Verify) -> Result<bool, Failure> {
    let mut all_good = true;
    let wanted = options.announcer.as_deref().or(options.station.as_deref());
    let known = match (wanted, StateFolder::find(options.state.folder.as_deref())?) {
        (None, Some(folder)) => keys::known_signers(&folder)?,
        _ => Vec::new(),
    };
    for path in &options.files {
        let name = path.display();
        let sentence = match archive::verify_known(path, wanted, &known) {
            Ok(Verified { created_unix_ms, signer, station, filed_unix_ms }) => {
                let time = report::time(created_unix_ms / 1_000);
                let said = station.map_or("announced".to_owned(), |station| format!("said by {station}"));
                let filed = match created_unix_ms.abs_diff(filed_unix_ms) > MAX_ASTRAY_MS {
                    true => format!(" by its own clock (filed {})", report::time(filed_unix_ms / 1_000)),
                    false => String::new(),
                };
                format!("{name}: good: {said} {time}{filed}, signed by {signer}")
            }
            Err(error) => {
                all_good = false;
                format!("{name}: NOT GOOD: {}", bullhorn::error_chain(&error))
            }
        };
        writeln!(io::stdout(), "{}", report::escaped(&sentence))?;
    }
    Ok(all_good)
}

fn list_devices() -> Result<bool, Failure> {
    io::stdout().write_all(report::devices(&devices::list()).as_bytes())?;
    Ok(true)
}

fn demonstrate(options: &cli::Demo) -> Result<bool, Failure> {
    let runtime = Runtime::new()?;
    let _guard = runtime.enter();
    let demo = Demo::find()?;
    let mode = Mode::choose(options.events.is_some(), !options.once);
    let say = |line: &str| match mode {
        Mode::Json => writeln!(io::stderr(), "{line}"),
        Mode::Terminal | Mode::Prose => writeln!(io::stdout(), "{line}"),
    };
    for finding in &demo.findings {
        say(finding)?;
    }
    let folder = demo.folder().to_owned();
    let once = options.once || mode != Mode::Terminal;
    let summary: Summary = runtime.block_on(async {
        let shutdown = on_signals()?;
        let (events, shown) = Events::channel();
        let (commands, asked) = mpsc::channel::<Command>(MAX_WAITING_COMMANDS);
        let reader = (!once).then(|| commands.clone());
        let console = tokio::spawn(console::run(shown, reader, mode.into()));
        let summary = demo.run(once, asked, events, shutdown).await?;
        drop(commands);
        console.await??;
        Ok::<_, Failure>(summary)
    })?;
    for path in Demo::written(&folder) {
        say(&format!("played into {}", path.display()))?;
    }
    Ok(summary.all_heard)
}
