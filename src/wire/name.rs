//! Names of stations, zones and announcers: what may be shown, compared and used in a file's name.

use super::MAX_NAME_BYTES;

/// Whether a character could steer a terminal or disguise the text around it: control characters
/// (C0, DEL, C1), line separators, and invisible or direction-changing format characters.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a name may be shown, compared and used in a file's name: 1 to [`MAX_NAME_BYTES`] bytes, all
/// printable, no slash, no white space at either end, no dot or hyphen first.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.trim() == name
        && !name.starts_with(['.', '-'])
        && !name.contains(is_illegal_in_name)
}

/// Whether no name may hold the character.
pub fn is_illegal_in_name(c: char) -> bool {
    is_unprintable(c) || matches!(c, '/' | '\\')
}
