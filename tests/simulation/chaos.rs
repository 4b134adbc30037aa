//! What goes wrong and when: all of it is chosen by the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::building::{Book, Building, Plan};
use crate::gate::Gate;
use crate::network::{Fuse, Machine, Weather};
use crate::oracle::{self, Fact, Setting};
use crate::papers;

/// How long all machines have to find each other at the start, and to finish everything at the end.
const JOINING: Duration = Duration::from_secs(5);
const ENDING: Duration = Duration::from_secs(90);
/// Stations are in any of these zones, or in none.
const ZONES: [&str; 2] = ["east", "west"];
const YEAR_MS: i64 = 365 * 86_400_000;
const JUMPS_MS: [i64; 8] =
    [-10 * YEAR_MS, -86_400_000, -30_000, -1_000, 1_000, 30_000, 86_400_000, 10 * YEAR_MS];

/// The result of a seed.
pub struct Outcome {
    /// Everything that was wrong.
    pub wrong: Vec<String>,
    /// All events and acts, in order.
    pub log: Vec<String>,
    pub tally: Tally,
}

/// How often each thing happened.
#[derive(Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Checks that each kind of thing happened: a simulation without it proves nothing about it.
    pub fn assert_everything_happened(&self, seeds: u64) {
        if seeds < 500 {
            return;
        }
        for what in [
            "played",
            "played late",
            "interrupted",
            "missed",
            "again",
            "cuts",
            "one-way cuts",
            "slow ways",
            "announcer crashes",
            "station crashes",
            "restarts",
            "clock jumps",
            "broken loudspeakers",
            "pages to a zone",
            "archived outcomes",
        ] {
            assert!(self.0.contains_key(what), "no {what} in {seeds} seeds: {self}");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.0.iter().map(|(what, count)| format!("{count} {what}")).collect();
        formatter.write_str(&counts.join(", "))
    }
}

enum Act {
    Announce,
    Fault,
    Calm(Machine),
    Mend(Machine),
    Start(Machine),
    SeeOff(Machine),
}

struct Chaos {
    building: Building,
    dice: fastrand::Rng,
    agenda: BTreeMap<(Instant, u64), Act>,
    acts: u64,
    until: Instant,
    tally: Tally,
}

/// Panics, each with its thread.
static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());
static HOOK: Once = Once::new();

/// Records panics in tasks, which the runtime would swallow.
fn watch_for_panics() {
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let words = format!("a panic: {panic}");
            PANICS.lock().unwrap().push((format!("{:?} {:?}", thread.id(), thread.name()), words));
            report(panic);
        }));
    });
}

/// Runs one seed from the start to the verdict.
pub fn run(seed: u64) -> Outcome {
    watch_for_panics();
    let pool = format!("seed {seed}");
    let gate = Arc::new(Gate::default());
    let [enter, leave, open, close] = std::array::from_fn(|_| gate.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::ZERO)
        .on_thread_start(move || enter.enter())
        .on_thread_stop(move || leave.leave())
        .on_thread_park(move || open.open())
        .on_thread_unpark(move || close.close())
        .global_queue_interval(u32::MAX)
        .event_interval(u32::MAX)
        .thread_name(&pool)
        .build()
        .unwrap();
    let disk = gate.clone();
    let simulated = runtime.block_on(async move { tokio::spawn(simulate(seed, disk)).await });
    gate.open();
    drop(runtime);
    let mut outcome = simulated.unwrap_or_else(|error| Outcome {
        wrong: vec![format!("the simulation itself failed: {error}")],
        log: vec![],
        tally: Tally::default(),
    });
    let thread = std::thread::current();
    let here = format!("{:?} {:?}", thread.id(), thread.name());
    PANICS.lock().unwrap().retain(|(thread, words)| {
        let is_ours = *thread == here || thread.contains(&format!("{pool:?}"));
        if is_ours {
            outcome.wrong.push(words.clone());
        }
        !is_ours
    });
    outcome
}

async fn simulate(seed: u64, disk: Arc<Gate>) -> Outcome {
    let mut dice = fastrand::Rng::with_seed(seed);
    let plan = Plan {
        seed,
        stations: dice.usize(2..=4),
        keep: Duration::from_secs([0, 12, 12, 20, 20, 30, 30, 30][dice.usize(0..8)]),
        clip_ms: dice.u64(300..1_800),
        archives: dice.bool(),
        zones: (0..4)
            .map(|_| ZONES.iter().filter(|_| dice.bool()).map(|&zone| zone.into()).collect())
            .collect(),
        fair: Weather {
            is_open: true,
            delay: Duration::from_micros(dice.u64(200..8_000)),
            jitter: Duration::from_micros(dice.u64(0..4_000)),
            bytes_per_s: dice.u64(500_000..20_000_000),
        },
    };
    let until = Instant::now() + JOINING + Duration::from_secs(dice.u64(8..20));
    let plan = Plan { zones: plan.zones[..plan.stations].to_vec(), ..plan };
    let building = Building::new(plan, disk);
    building.say(format!("{:?}", building.plan));
    let mut chaos =
        Chaos { building, dice, agenda: BTreeMap::new(), acts: 0, until, tally: Tally::default() };
    let mut wrong = chaos.unfold().await;
    let entries = std::mem::take(&mut chaos.building.book.lock().unwrap().entries);
    let archives = chaos.building.archives();
    wrong.extend(oracle::judge(&chaos.building.setting(), &entries));
    wrong.extend(papers::judge(&archives, &entries));
    archives
        .first()
        .iter()
        .for_each(|it| it.outcomes.iter().for_each(|_| chaos.tally.count("archived outcomes")));
    for entry in &entries {
        match &entry.fact {
            Fact::Ended { outcome, again, .. } => {
                chaos.tally.count(outcome.words());
                if *again {
                    chaos.tally.count("again");
                }
            }
            Fact::Recorded { zones, .. } => {
                chaos.tally.count("clips");
                if !zones.is_empty() {
                    chaos.tally.count("pages to a zone");
                }
            }
            Fact::Crashes if entry.machine == 0 => chaos.tally.count("announcer crashes"),
            Fact::Crashes => chaos.tally.count("station crashes"),
            _ => (),
        }
    }
    let log = std::mem::take(&mut chaos.building.book.lock().unwrap().lines);
    Outcome { wrong, log, tally: chaos.tally }
}

impl Chaos {
    async fn unfold(&mut self) -> Vec<String> {
        for machine in self.building.machines() {
            self.building.start(machine);
        }
        sleep(JOINING).await;
        let (first, second) = (self.short(), self.short());
        self.plan(first, Act::Announce);
        self.plan(second, Act::Fault);
        while let Some((&(at, number), _)) = self.agenda.first_key_value() {
            tokio::select! {
                biased;
                Some(machine) = self.building.crashes.recv() => self.pick_up(machine).await,
                () = sleep_until(at) => {
                    if let Some(act) = self.agenda.remove(&(at, number)) {
                        self.perform(act);
                    }
                }
            }
            let ended = self.building.ended_by_themselves();
            if !ended.is_empty() {
                return vec![format!("machines {ended:?} ended by themselves at {}", self.building.now_ms())];
            }
        }
        self.end().await
    }

    /// All is well again: every clip must come to its end.
    async fn end(&mut self) -> Vec<String> {
        self.building.say("all is well again".into());
        for machine in self.building.machines() {
            self.calm(machine);
            self.building.set_device(machine, None);
        }
        let until = Instant::now() + ENDING;
        loop {
            tokio::select! {
                biased;
                Some(machine) = self.building.crashes.recv() => {
                    // A fuse that was laid earlier, and burned down only now.
                    self.building.bury(machine).await;
                    self.building.start(machine);
                    continue;
                }
                () = sleep(Duration::from_secs(1)) => (),
            }
            if is_over(&self.building.book.lock().unwrap(), &self.building.setting())
                || Instant::now() >= until
            {
                break;
            }
        }
        sleep(Duration::from_secs(3)).await;
        self.building.say("everybody leaves".into());
        let mut wrong = Vec::new();
        for machine in self.building.machines().rev() {
            self.building.leave(machine);
            let until = Instant::now() + Duration::from_secs(60);
            while self.building.is_on(machine) && !self.building.has_left(machine) {
                sleep(Duration::from_millis(100)).await;
                if Instant::now() >= until {
                    wrong.push(format!("machine {machine} does not leave"));
                    break;
                }
            }
        }
        wrong
    }

    fn plan(&mut self, after: Duration, act: Act) {
        self.acts += 1;
        self.agenda.insert((Instant::now() + after, self.acts), act);
    }

    fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.u64(range))
    }

    /// A time from a moment to a few seconds, more often short.
    fn short(&mut self) -> Duration {
        let longest = [100, 1_000, 5_000][self.dice.usize(0..3)];
        self.ms(1..longest)
    }

    /// How long something stays out of order.
    fn outage(&mut self) -> Duration {
        match self.dice.u8(0..10) {
            0..5 => self.ms(10..400),
            5..9 => self.ms(400..4_000),
            _ => self.ms(4_000..20_000),
        }
    }

    /// Clears away a crashed program, and plans its return.
    async fn pick_up(&mut self, machine: Machine) {
        self.building.bury(machine).await;
        let after = self.outage();
        self.plan(after, Act::Start(machine));
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Announce => {
                if Instant::now() >= self.until {
                    return;
                }
                for _ in 0..[1, 1, 1, 1, 3][self.dice.usize(0..5)] {
                    let zone = [None, None, Some(ZONES[0]), Some(ZONES[1])][self.dice.usize(0..4)];
                    self.building.announce(zone);
                }
                let after = self.short() + Duration::from_millis(500);
                self.plan(after, Act::Announce);
            }
            Act::Fault => {
                if Instant::now() >= self.until {
                    return;
                }
                self.fault();
                let after = self.short();
                self.plan(after, Act::Fault);
            }
            Act::Calm(machine) => self.calm(machine),
            Act::Mend(machine) => {
                self.building.say(format!("the loudspeaker of {machine} works"));
                self.building.set_device(machine, None);
            }
            Act::Start(machine) => self.building.start(machine),
            Act::SeeOff(machine) => {
                if self.building.has_left(machine) {
                    let after = self.outage();
                    self.plan(after, Act::Start(machine));
                } else if self.building.is_leaving(machine) {
                    self.plan(Duration::from_millis(100), Act::SeeOff(machine));
                }
            }
        }
    }

    fn calm(&mut self, machine: Machine) {
        let fair = self.building.plan.fair;
        self.building.net.set_weather(0, machine, fair);
        self.building.net.set_weather(machine, 0, fair);
    }

    fn fault(&mut self) {
        let station = self.dice.usize(1..=self.building.plan.stations);
        match self.dice.u8(0..100) {
            0..15 => self.cut(&[station], true, true),
            15..35 => {
                let there = self.dice.bool();
                self.cut(&[station], there, !there);
            }
            35..40 => {
                let all: Vec<Machine> = (1..=self.building.plan.stations).collect();
                self.cut(&all, true, true);
            }
            40..48 => self.slow(station),
            48..55 => self.break_device(station),
            55..62 => self.crash(station),
            62..74 => self.lay_fuse(station),
            74..79 => self.crash(0),
            79..89 => self.lay_fuse(0),
            89..92 => self.leave(station),
            92..94 => self.leave(0),
            _ => {
                let jump_ms = JUMPS_MS[self.dice.usize(0..JUMPS_MS.len())];
                self.building.say(format!("the clock jumps by {jump_ms} ms"));
                self.building.jump(jump_ms);
                self.tally.count("clock jumps");
            }
        }
    }

    fn cut(&mut self, machines: &[Machine], there: bool, back: bool) {
        self.tally.count(if there && back { "cuts" } else { "one-way cuts" });
        let lasting = self.outage();
        for &machine in machines {
            let closed = |weather: Weather| Weather { is_open: false, ..weather };
            let net = &self.building.net;
            if there {
                net.set_weather(0, machine, closed(net.weather(0, machine)));
            }
            if back {
                net.set_weather(machine, 0, closed(net.weather(machine, 0)));
            }
            self.plan(lasting, Act::Calm(machine));
        }
        self.building.say(format!("cut to {machines:?}: there {there}, back {back}, for {lasting:?}"));
    }

    fn slow(&mut self, machine: Machine) {
        self.tally.count("slow ways");
        let (lasting, longest) = (self.outage(), [50, 300, 1_500][self.dice.usize(0..3)]);
        let weather = Weather {
            is_open: true,
            delay: self.ms(1..longest),
            jitter: self.ms(1..longest),
            bytes_per_s: [5_000, 50_000, 500_000][self.dice.usize(0..3)],
        };
        self.building.say(format!("slow to {machine}, for {lasting:?}: {weather:?}"));
        if self.dice.bool() {
            self.building.net.set_weather(0, machine, weather);
        }
        if self.dice.bool() {
            self.building.net.set_weather(machine, 0, weather);
        }
        self.plan(lasting, Act::Calm(machine));
    }

    fn break_device(&mut self, machine: Machine) {
        self.tally.count("broken loudspeakers");
        let lasting = self.outage();
        self.building.say(format!("the loudspeaker of {machine} breaks, for {lasting:?}"));
        self.building.set_device(machine, Some("unplugged"));
        self.plan(lasting, Act::Mend(machine));
    }

    fn crash(&mut self, machine: Machine) {
        if self.building.is_on(machine) {
            let power = self.dice.bool();
            self.building.say(format!("machine {machine} crashes, power {power}"));
            self.building.net.crash(machine, power);
        }
    }

    fn lay_fuse(&mut self, machine: Machine) {
        if self.building.is_on(machine) {
            let longest = [3, 12, 60][self.dice.usize(0..3)];
            let touches = self.dice.u32(1..=longest);
            let fuse = Fuse { touches, after: self.dice.bool(), power: self.dice.bool() };
            self.building.say(format!("machine {machine}: {fuse:?}"));
            self.building.net.lay_fuse(machine, fuse);
        }
    }

    fn leave(&mut self, machine: Machine) {
        if self.building.is_on(machine) {
            self.tally.count("restarts");
            self.building.say(format!("machine {machine} is told to leave"));
            self.building.leave(machine);
            self.plan(Duration::from_millis(100), Act::SeeOff(machine));
        }
    }
}

/// Returns whether every clip has an outcome for every station that it is for.
fn is_over(book: &Book, setting: &Setting) -> bool {
    let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in &book.entries {
        match &entry.fact {
            Fact::Recorded { clip, zones, .. } => {
                open.entry(clip).or_insert_with(|| setting.meant(zones));
            }
            Fact::Sending { clip, stations } => {
                open.entry(clip).or_insert_with(|| stations.iter().map(String::as_str).collect());
            }
            Fact::Ended { clip, station, .. } => {
                open.entry(clip).or_default().remove(station.as_str());
            }
            _ => (),
        }
    }
    open.values().all(BTreeSet::is_empty)
}
