//! Sizes as the configuration writes them.

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

/// The units, the largest first (IEC 80000-13).
const UNITS: [(&str, usize); 3] = [("MiB", MIB), ("KiB", KIB), ("B", 1)];

/// Reads `1MiB`, `512KiB`, `100000B`: one whole number and one unit.
pub(super) fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit())?)?;
    let (_, bytes) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<usize>().ok()?.checked_mul(bytes)
}

/// Writes a size so that [`parse_size`] reads it back.
pub(super) fn format_size(bytes: usize) -> String {
    let whole = UNITS.into_iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    let (name, unit) = whole.unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [("1MiB", 1 << 20), ("512KiB", 512 << 10), ("64MiB", 64 << 20), ("1000B", 1000)] {
            assert_eq!(parse_size(text), Some(want), "{text}");
            assert_eq!(format_size(want), text);
        }
        assert_eq!((parse_size("1024KiB"), format_size(1 << 20).as_str()), (Some(1 << 20), "1MiB"));
        for text in [
            "",
            "1",
            "MiB",
            "1 MiB",
            "1mib",
            "1MB",
            "1M",
            "1.5MiB",
            "-1MiB",
            "1MiB1KiB",
            "1GiB",
            "99999999999999999999B",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
