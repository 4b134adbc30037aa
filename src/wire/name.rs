//! Names of stations, zones and announcers: what can be shown, compared and used in a file's name.

use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

use super::MAX_NAME_BYTES;

/// Whether a character could steer a terminal or disguise the text around it: control characters
/// (C0, DEL, C1), line separators, and invisible or direction-changing format characters.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it can be seen.
    #[error("a name has at least one character that is not a space")]
    Empty,
    /// It is too long.
    #[error("a name has at most {MAX_NAME_BYTES} bytes, and this one has {0}")]
    Long(usize),
    /// It begins with a character that hides a file or looks like an option.
    #[error("a name does not begin with {0}")]
    First(char),
    /// It has white space at an end.
    #[error("a name neither begins nor ends with a space")]
    Spaces,
    /// It has a character that separates folders.
    #[error("a name holds no {0}, as it becomes part of a file's name")]
    Slash(char),
    /// It has a character that cannot be seen or steers a terminal.
    #[error("a name holds no control character and nothing invisible, and this one holds {}", .0.escape_unicode())]
    Unprintable(char),
}

/// Checks that a text can be shown, compared and used in a file's name: 1 to [`MAX_NAME_BYTES`] bytes, all printable,
/// no slash, no white space at either end, no dot or hyphen first.
///
/// # Errors
/// The rule that it breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::Long(name.len()));
    }
    if name.trim() != name {
        return Err(NameError::Spaces);
    }
    if let Some(first @ ('.' | '-')) = name.chars().next() {
        return Err(NameError::First(first));
    }
    match name.chars().find(|c| is_illegal_in_name(*c)) {
        Some(slash @ ('/' | '\\')) => Err(NameError::Slash(slash)),
        Some(other) => Err(NameError::Unprintable(other)),
        None => Ok(()),
    }
}

/// Whether a text passes [`check_name`].
pub fn is_name(name: &str) -> bool {
    check_name(name).is_ok()
}

/// Whether a character is not allowed in any name.
pub fn is_illegal_in_name(c: char) -> bool {
    is_unprintable(c) || matches!(c, '/' | '\\')
}

/// A name in Unicode's normalization form C, in which names are compared: `é` is one name, whichever way it was typed.
pub fn normalized(name: &str) -> String {
    name.nfc().collect()
}

/// The look of a name (the skeleton of Unicode Technical Standard 39, ignoring variants of a character): people cannot
/// tell two names with the same look apart.
pub fn look(name: &str) -> String {
    let is_variant = |c: &char| matches!(c, '\u{fe00}'..='\u{fe0f}');
    let seen: String = name.chars().filter(|c| !is_variant(c)).collect();
    skeleton(&seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_names_is_named() {
        for (name, words) in [
            ("", "at least one character"),
            (" ", "at least one character"),
            (" a", "begins nor ends with a space"),
            (".a", "begin with ."),
            ("-a", "begin with -"),
            ("a/b", "holds no /"),
            ("a\u{202e}b", "\\u{202e}"),
            ("a\u{1b}[2J", "\\u{1b}"),
            ("a\u{3164}", "\\u{3164}"),
        ] {
            let said = check_name(name).map_err(|error| error.to_string());
            assert!(said.as_ref().is_err_and(|said| said.contains(words)), "{name:?}: {said:?}");
        }
        assert_eq!(check_name(&"é".repeat(33)), Err(NameError::Long(66)));
        assert_eq!(check_name("Flügel Süd 北"), Ok(()));
    }

    #[test]
    fn what_looks_the_same_has_one_look() {
        assert_eq!(normalized("e\u{301}tage"), "étage");
        for (one, other) in [
            ("gym", "g\u{443}m"),
            ("hall-1", "hall-l"),
            ("A0", "AO"),
            ("étage", "e\u{301}tage"),
            ("a\u{fe0f}", "a"),
        ] {
            assert_eq!(look(one), look(other), "{one} {other}");
        }
        for (one, other) in [("hall-1", "hall-2"), ("gym", "Gym"), ("süd", "sud"), ("hall-1", "hall-11")] {
            assert_ne!(look(one), look(other), "{one} {other}");
        }
    }
}
