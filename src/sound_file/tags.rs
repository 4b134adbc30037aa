//! Tags that many files have in addition to their sound: titles and pictures, before and after it.

/// Returns the length of a tag at the front of `bytes`: ID3v2, ID3v1, APEv2 or Lyrics3v2. `None` if there is no tag.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let length = match bytes {
        [b'I', b'D', b'3', _, _, flags, size @ ..] => {
            let footer = if flags & 0x10 != 0 { 10 } else { 0 };
            10 + sum_of_sevens(size.first_chunk()?)? + footer
        }
        [b'T', b'A', b'G', b'+', ..] => 227,
        [b'T', b'A', b'G', ..] => 128,
        [b'A', b'P', b'E', b'T', b'A', b'G', b'E', b'X', _, _, _, _, size @ ..] => {
            // The size counts a footer but no header, and this may be either.
            let is_header = bytes.get(23)? & 0x20 != 0;
            if is_header { 32 + u32::from_le_bytes(*size.first_chunk()?) as usize } else { 32 }
        }
        [b'L', b'Y', b'R', b'I', b'C', b'S', b'B', b'E', b'G', b'I', b'N', ..] => {
            const END: &[u8] = b"LYRICS200";
            bytes.windows(END.len()).position(|window| window == END)? + END.len()
        }
        _ => return None,
    };
    (length <= bytes.len()).then_some(length)
}

/// Reads a size of ID3v2, which has seven bits in each byte.
fn sum_of_sevens(size: &[u8; 4]) -> Option<usize> {
    let is_right = size.iter().all(|&byte| byte < 0x80);
    is_right.then(|| size.iter().fold(0, |sum, &byte| sum << 7 | usize::from(byte)))
}
