//! The limits in `docs/operating.md` are those of the code: each number in a row is the value of a constant that the row names.

use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/operating.md");

/// The value of a constant.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    Number(u128),
    /// In milliseconds.
    Time(u128),
}

/// The source files that might define a constant with a path such as `announcer::room::MAX_STRANGERS`, and its name.
fn files(path: &str) -> (Vec<PathBuf>, &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let Some((module, name)) = path.rsplit_once("::") else {
        return (vec![source.join("main.rs")], path);
    };
    let module = source.join(module.replace("::", "/"));
    let mut files = vec![module.with_extension("rs")];
    files.extend(std::fs::read_dir(module).into_iter().flatten().map(|entry| entry.unwrap().path()));
    (files, name)
}

fn value_of(path: &str) -> Value {
    let (files, name) = files(path);
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let head = format!("const {name}: ");
        let Some(rest) = text.lines().find_map(|line| line.split_once(&head)) else { continue };
        let (_, expression) = rest.1.split_once(" = ").unwrap();
        return evaluate(expression.trim_end_matches(';'), path);
    }
    panic!("there is no constant {path}");
}

/// Evaluates sums, products and shifts of numbers and other constants, from the left.
fn evaluate(expression: &str, of: &str) -> Value {
    let expression = expression.replace(".as_secs() as usize", "").replace(" as usize", "");
    if let Some(argument) = expression.strip_prefix("Duration::from_secs(") {
        return Value::Time(1_000 * number(argument.trim_end_matches(')'), of));
    }
    if let Some(argument) = expression.strip_prefix("Duration::from_millis(") {
        return Value::Time(number(argument.trim_end_matches(')'), of));
    }
    let sum = expression
        .split(" + ")
        .map(|product| product.split(" * ").map(|it| number(it, of)).product::<u128>());
    if expression.contains(' ') || expression.starts_with(|first: char| first.is_ascii_digit()) {
        return Value::Number(sum.sum());
    }
    named(&expression, of)
}

fn number(text: &str, of: &str) -> u128 {
    if let Some((number, shift)) = text.split_once(" << ") {
        return number.parse::<u128>().unwrap() << shift.parse::<u32>().unwrap();
    }
    match text.replace('_', "").parse() {
        Ok(number) => number,
        Err(_) => match named(text, of) {
            Value::Number(number) => number,
            Value::Time(ms) => ms / 1_000,
        },
    }
}

/// The value of another constant, from the same module or by its whole path.
fn named(name: &str, of: &str) -> Value {
    match (name.strip_prefix("crate::"), of.rsplit_once("::")) {
        (Some(path), _) => value_of(path),
        (None, Some((module, _))) => value_of(&format!("{module}::{name}")),
        (None, None) => value_of(name),
    }
}

/// The ways to write a value; the page uses one of them.
fn spellings(value: Value) -> Vec<String> {
    let grouped = |number: u128| {
        let digits = number.to_string();
        let from_end = |(index, digit): (usize, char)| {
            let left = digits.len() - index;
            if index > 0 && left.is_multiple_of(3) { vec![',', digit] } else { vec![digit] }
        };
        digits.chars().enumerate().flat_map(from_end).collect::<String>()
    };
    let mut all = Vec::new();
    match value {
        Value::Number(number) => {
            all.push(grouped(number));
            for (unit, bytes) in [("KiB", 1 << 10), ("MiB", 1 << 20)] {
                if number % bytes == 0 {
                    all.push(format!("{} {unit}", grouped(number / bytes)));
                }
            }
        }
        Value::Time(ms) => {
            all.push(format!("{} ms", grouped(ms)));
            for (unit, each_ms) in [("s", 1_000), ("min", 60_000), ("h", 3_600_000)] {
                if ms % each_ms == 0 {
                    all.push(format!("{} {unit}", grouped(ms / each_ms)));
                }
            }
        }
    }
    all
}

/// The numbers in a text, each with its unit if it has one.
fn numbers(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split([' ', '/', ';', '(', ')']).filter(|word| !word.is_empty()).collect();
    let is_number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate().filter(|(_, word)| is_number(word)) {
        let unit = words.get(index + 1).map(|unit| unit.trim_matches(','));
        let unit = unit.filter(|unit| ["KiB", "MiB", "GiB", "ms", "s", "min", "h"].contains(unit));
        let number = word.trim_end_matches(',');
        found.push(unit.map_or(number.to_owned(), |unit| format!("{number} {unit}")));
    }
    found
}

#[test]
fn every_limit_in_the_table_is_that_of_the_code() {
    let table = PAGE.split("\n## Limits\n").nth(1).unwrap().trim_start().split("\n\n").next().unwrap();
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    for row in rows {
        let [what, bound, constants] = row.trim_matches(['|', ' ']).split(" | ").collect::<Vec<_>>()[..]
        else {
            panic!("{row}");
        };
        let mut paths: Vec<String> = Vec::new();
        for name in constants.split('`').skip(1).step_by(2) {
            // A name without a path is in the same module as the one before it.
            let module = paths.last().and_then(|path| path.rsplit_once("::")).map(|(module, _)| module);
            paths.push(match (name.contains("::"), module) {
                (false, Some(module)) => format!("{module}::{name}"),
                _ => name.to_owned(),
            });
        }
        let values: Vec<Vec<String>> = paths.iter().map(|path| spellings(value_of(path))).collect();
        assert!(!values.is_empty(), "no constant stands for {what}");
        let written = numbers(bound);
        for number in &written {
            assert!(values.iter().any(|all| all.contains(number)), "{what}: {number} is none of {values:?}");
        }
        for (all, path) in values.iter().zip(&paths) {
            assert!(
                all.iter().any(|it| written.contains(it)),
                "{what}: {path} is {all:?}, and not {bound:?}"
            );
        }
    }
}

#[test]
fn numbers_are_found_and_spelt() {
    assert_eq!(numbers("5; 2 if it refuses, 120 s, 11,520,044 bytes"), ["5", "2", "120 s", "11,520,044"]);
    assert_eq!(numbers("slower than 32 KiB/s, 10 min"), ["32 KiB", "10 min"]);
    assert!(spellings(Value::Number(256 << 20)).contains(&"256 MiB".to_owned()));
    assert!(spellings(Value::Time(600_000)).contains(&"10 min".to_owned()));
    assert_eq!(value_of("clip::MAX_WAV_BYTES"), Value::Number(11_520_044));
    assert_eq!(value_of("announcer::MAX_STATIONS"), Value::Number(65_536));
}
