//! Turns the bytes of a manifest file into text: UTF-8 or UTF-16, with or without byte order marks.
//!
//! kubectl takes UTF-8 and UTF-16 with a byte order mark; Windows editors and PowerShell write both.

/// Decodes a whole file. A byte order mark at the beginning of any line is dropped, because files that are joined keep theirs in the middle.
pub(super) fn text(bytes: &[u8]) -> Result<String, String> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => std::str::from_utf8(bytes).map_err(|error| not_text(bytes, error.valid_up_to()))?.to_owned(),
    };
    if !text.contains('\u{feff}') {
        return Ok(text);
    }
    Ok(text.split_inclusive('\n').map(|line| line.trim_start_matches('\u{feff}')).collect())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let pairs = bytes.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err("the file begins like UTF-16, but its length is odd: save it as UTF-8".to_owned());
    }
    char::decode_utf16(pairs.map(|pair| unit([pair[0], pair[1]])))
        .collect::<Result<String, _>>()
        .map_err(|_| "the file begins like UTF-16, but is not valid UTF-16: save it as UTF-8".to_owned())
}

fn not_text(bytes: &[u8], at: usize) -> String {
    let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("line {line}: the file is not UTF-8 text (byte {}): save it as UTF-8", at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_that_windows_writes_is_read() {
        let wanted = "kind: Lease\nname: é😀\n";
        assert_eq!(text(wanted.as_bytes()).unwrap(), wanted);
        assert_eq!(text(format!("\u{feff}{wanted}").as_bytes()).unwrap(), wanted);
        let encoded = |unit: fn(u16) -> [u8; 2]| format!("\u{feff}{wanted}").encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        assert_eq!(text(&encoded(u16::to_le_bytes)).unwrap(), wanted);
        assert_eq!(text(&encoded(u16::to_be_bytes)).unwrap(), wanted);
    }

    #[test]
    fn joined_files_lose_the_marks_between_them_and_nothing_else() {
        assert_eq!(text("\u{feff}a: 1\n---\n\u{feff}b: \"\u{feff}\"\n".as_bytes()).unwrap(), "a: 1\n---\nb: \"\u{feff}\"\n");
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        assert!(text(b"a: 1\nb: \xff\n").unwrap_err().starts_with("line 2: the file is not UTF-8"));
        assert!(text(b"\xff\xfea").unwrap_err().contains("length is odd"));
        assert!(text(&[0xff, 0xfe, 0x00, 0xd8]).unwrap_err().contains("not valid UTF-16"));
    }
}
