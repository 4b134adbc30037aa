//! The zone that each digit of the console selects: `zones` in the announcer's state folder. A zone keeps its digit, so
//! that no station can move another's digit by the names of its zones; only the operator changes the order.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::checked::Kind;
use super::folder::Stamp;
use super::{KeysError, StateFolder};
use crate::wire::is_name;

const ZONES: Kind = Kind {
    file: "zones",
    word: "zones",
    remedy: "restore it from a backup; or delete it, and say the order anew with `bullhorn zones order`",
};

/// How many zones can have a digit; the digits count from 1.
pub const ZONE_DIGITS: usize = 9;

/// The order of the zones, in memory, with its file, which other processes can change at any time.
#[derive(Debug)]
pub struct ZoneOrder {
    /// `None` in open mode, where nothing is kept.
    folder: Option<StateFolder>,
    read: Stamp,
    zones: Vec<String>,
}

impl ZoneOrder {
    /// Reads the file if there is a folder; the file might not exist yet.
    ///
    /// # Errors
    /// Errors from reading; a damaged file is refused, because the wrong hallways would hear the announcement.
    pub fn open(folder: Option<&StateFolder>) -> Result<Self, KeysError> {
        let mut order = Self { folder: folder.cloned(), read: Stamp::default(), zones: Vec::new() };
        order.refresh()?;
        Ok(order)
    }

    /// Reads the file again if it has changed, and returns whether it has. Costs one `stat` when it has not.
    ///
    /// # Errors
    /// Errors from reading; the content in memory stays.
    pub fn refresh(&mut self) -> Result<bool, KeysError> {
        let Some(folder) = &self.folder else { return Ok(false) };
        let stamp = folder.stamp(ZONES.file)?;
        if stamp == self.read {
            return Ok(false);
        }
        self.zones = read(folder)?;
        self.read = stamp;
        Ok(true)
    }

    /// The zones that have a digit, ordered by digit, whether or not a station is in them.
    pub fn with_digits(&self) -> &[String] {
        &self.zones
    }

    /// All zones: those with a digit, and then those of `live` that have none, in natural order.
    pub fn all(&self, live: &BTreeSet<&str>) -> Vec<String> {
        let mut rest: Vec<&str> =
            live.iter().copied().filter(|zone| !self.zones.iter().any(|it| it == zone)).collect();
        rest.sort_by(|one, other| natural(one, other));
        self.zones.iter().cloned().chain(rest.into_iter().map(str::to_owned)).collect()
    }

    /// Gives digits to zones that have none, in order: first free digits, and then those of zones that are no longer
    /// `live`. This changes memory only; it returns what has to be written, if anything.
    pub fn append(&mut self, zones: &[String], live: &BTreeSet<&str>) -> Option<ZoneDraft> {
        if !append(&mut self.zones, zones, live) {
            return None;
        }
        let live = live.iter().map(|zone| (*zone).to_owned()).collect();
        Some(ZoneDraft { folder: self.folder.clone()?, zones: zones.to_vec(), live })
    }

    /// Puts zones first, in this order. The others follow in their old order, except for those that are not `live`.
    ///
    /// # Errors
    /// [`KeysError::BadName`], and errors from reading and writing.
    pub fn put_first(&mut self, first: &[String], live: &BTreeSet<&str>) -> Result<(), KeysError> {
        if !first.iter().all(|zone| is_name(zone)) {
            return Err(KeysError::BadName);
        }
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let locked = folder.lock()?;
        let mut zones: Vec<String> = Vec::new();
        let others = read(&folder)?.into_iter().filter(|zone| live.contains(zone.as_str()));
        for zone in first.iter().cloned().chain(others) {
            if !zones.contains(&zone) && zones.len() < ZONE_DIGITS {
                zones.push(zone);
            }
        }
        ZONES.write(&locked, &body(&zones))?;
        self.refresh().map(drop)
    }
}

/// Zones that need digits on the disk as well. Writing can take as long as the disk likes.
#[derive(Debug)]
pub struct ZoneDraft {
    folder: StateFolder,
    zones: Vec<String>,
    live: Vec<String>,
}

impl ZoneDraft {
    /// Merges a later draft into this one, so that both are written together.
    pub fn follow(&mut self, later: Self) {
        self.live = later.live;
        self.zones.extend(later.zones);
        let mut seen = BTreeSet::new();
        self.zones.retain(|zone| self.live.contains(zone) && seen.insert(zone.clone()));
    }

    /// Writes them to the disk, after anything that another process has written meanwhile.
    ///
    /// # Errors
    /// Errors from reading and writing.
    pub fn write(&self) -> Result<(), KeysError> {
        let locked = self.folder.lock()?;
        let mut zones = read(&self.folder)?;
        let live = self.live.iter().map(String::as_str).collect();
        if append(&mut zones, &self.zones, &live) { ZONES.write(&locked, &body(&zones)) } else { Ok(()) }
    }
}

fn append(order: &mut Vec<String>, zones: &[String], live: &BTreeSet<&str>) -> bool {
    let mut is_changed = false;
    for zone in zones {
        if order.contains(zone) {
            continue;
        }
        let abandoned = order.iter().position(|it| !live.contains(it.as_str()));
        match abandoned {
            _ if order.len() < ZONE_DIGITS => order.push(zone.clone()),
            Some(abandoned) => order[abandoned].clone_from(zone),
            None => continue,
        }
        is_changed = true;
    }
    is_changed
}

fn read(folder: &StateFolder) -> Result<Vec<String>, KeysError> {
    let body = ZONES.read(folder)?;
    let zones: Vec<String> = body.iter().flat_map(|body| body.lines()).map(str::to_owned).collect();
    if zones.len() > ZONE_DIGITS || !zones.iter().all(|zone| is_name(zone)) {
        return Err(ZONES.damaged(folder, "a line is not a zone"));
    }
    Ok(zones)
}

fn body(zones: &[String]) -> String {
    zones.iter().map(|zone| format!("{zone}\n")).collect()
}

/// The order in which people count: `floor 2` before `floor 10`.
pub fn natural(one: &str, other: &str) -> Ordering {
    let key = |name: &str| -> Vec<(u64, String)> {
        let mut parts = vec![(0_u64, String::new())];
        let mut was_digit = false;
        for c in name.chars() {
            let digit = c.to_digit(10);
            if digit.is_none() && was_digit {
                parts.push((0, String::new()));
            }
            was_digit = digit.is_some();
            if let Some(part) = parts.last_mut() {
                match digit {
                    Some(digit) => part.0 = part.0.saturating_mul(10).saturating_add(digit.into()),
                    None => part.1.push(c),
                }
            }
        }
        parts
    };
    let words = |parts: Vec<(u64, String)>| {
        parts.into_iter().map(|(number, word)| (word, number)).collect::<Vec<_>>()
    };
    words(key(one)).cmp(&words(key(other))).then_with(|| one.cmp(other))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn live(text: &str) -> BTreeSet<&str> {
        text.split_whitespace().collect()
    }

    #[test]
    fn a_digit_stays_whatever_others_call_themselves_and_outlives_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let mut order = ZoneOrder::open(Some(&folder)).unwrap();
        order.append(&names("gym yard"), &live("gym yard")).unwrap().write().unwrap();
        let all = live("!0 gym yard attic");
        order.append(&names("!0"), &all).unwrap().write().unwrap();
        assert!(order.append(&names("gym !0"), &all).is_none());
        assert_eq!(order.with_digits(), names("gym yard !0"));
        assert_eq!(ZoneOrder::open(Some(&folder)).unwrap().all(&all), names("gym yard !0 attic"));
        // A zone that nobody is in keeps its digit until another needs it.
        let many = "a b c d e f g h";
        let rest = format!("gym !0 {many}");
        order.append(&names(many), &live(&rest)).unwrap().write().unwrap();
        assert_eq!(order.with_digits(), names("gym g !0 a b c d e f"));
        assert_eq!(order.all(&live(&rest)), names("gym g !0 a b c d e f h"));
        assert_eq!(ZoneOrder::open(Some(&folder)).unwrap().with_digits(), order.with_digits());
    }

    #[test]
    fn the_operator_fixes_the_order_also_while_the_announcer_runs() {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let mut running = ZoneOrder::open(Some(&folder)).unwrap();
        running.append(&names("!0 gym old yard"), &live("!0 gym old yard")).unwrap().write().unwrap();
        let all = live("!0 gym yard");
        ZoneOrder::open(Some(&folder)).unwrap().put_first(&names("yard gym"), &all).unwrap();
        assert!(running.refresh().unwrap());
        assert_eq!(running.with_digits(), names("yard gym !0"));
        let bad = ZoneOrder::open(Some(&folder)).unwrap().put_first(&["a/b".into()], &all);
        assert!(matches!(bad, Err(KeysError::BadName)));
        ZONES.write(&folder.lock().unwrap(), "a/b\n").unwrap();
        assert!(ZoneOrder::open(Some(&folder)).unwrap_err().to_string().contains("zones order"));
    }

    #[test]
    fn numbers_in_names_are_counted() {
        let mut zones = ["floor 10", "floor 2", "floor", "attic", "floor 2 east"];
        zones.sort_by(|one, other| natural(one, other));
        assert_eq!(zones, ["attic", "floor", "floor 2", "floor 2 east", "floor 10"]);
    }
}
