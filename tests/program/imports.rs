//! The map in `src/lib.rs` is true: it has every module, and each imports only modules below it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The floors of the map, from the top down: the lines between `//! ```text floors` and the end of that block.
fn floors(map: &str) -> Vec<Vec<String>> {
    map.lines()
        .skip_while(|line| *line != "//! ```text floors")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//!").split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// The modules that `src/lib.rs` declares.
fn declared(map: &str) -> Vec<String> {
    let name = |line: &str| {
        let line = line.trim_start_matches("pub ");
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    };
    map.lines().filter_map(name).collect()
}

/// The files of a module, without those of its tests.
fn files(module: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![sources().join(module)];
    let file = sources().join(format!("{module}.rs"));
    found.extend(file.is_file().then_some(file));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if entry.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if entry.is_dir() { folders.push(entry) } else { found.push(entry) }
        }
    }
    found
}

/// The code of a file without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.take_while(|line| !line.starts_with("mod tests {")).collect::<Vec<_>>().join("\n")
}

/// The first names of all paths that begin with `crate::`, also in braces.
fn imports(code: &str) -> Vec<String> {
    let name =
        |text: &str| -> String { text.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect() };
    let mut found = Vec::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            None => found.push(name(path)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (index, sign) in group.char_indices() {
                    match sign {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if start && !sign.is_whitespace() => {
                            found.push(name(&group[index..]));
                            start = false;
                        }
                        _ => (),
                    }
                }
            }
        }
    }
    found
}

#[test]
fn every_module_imports_only_what_is_below_it_on_the_map() {
    let map = fs::read_to_string(sources().join("lib.rs")).unwrap();
    let floors = floors(&map);
    let mut level = BTreeMap::new();
    for (depth, floor) in floors.iter().enumerate() {
        for module in floor {
            assert_eq!(level.insert(module.clone(), depth), None, "{module} is on the map twice");
        }
    }
    let mut declared = declared(&map);
    declared.sort();
    assert_eq!(
        level.keys().cloned().collect::<Vec<_>>(),
        declared,
        "the map has other modules than there are"
    );
    let mut found = 0;
    for (module, floor) in &level {
        for file in files(module) {
            for import in imports(&code(&fs::read_to_string(&file).unwrap())) {
                let Some(below) = level.get(&import).filter(|_| import != *module) else { continue };
                assert!(below > floor, "{} imports {import}, which is not below {module}", file.display());
                found += 1;
            }
        }
    }
    assert!(found > 100, "only {found} imports were found");
    let roles = [("announcer", "speaker"), ("speaker", "announcer")];
    for (role, other) in roles {
        for file in files(role) {
            let imported = imports(&code(&fs::read_to_string(&file).unwrap()));
            assert!(!imported.iter().any(|import| import == other), "{} imports {other}", file.display());
        }
    }
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let code = "use crate::wire::{Hello, name::Name};\nuse crate::{event::{Event, channel}, link};\nlet x = crate::clock::now();";
    assert_eq!(imports(code), ["wire", "event", "link", "clock"]);
    assert!(imports(&self::code("// use crate::wire;\nmod tests {\nuse crate::link;")).is_empty());
}
