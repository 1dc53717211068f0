//! JSON numbers with the digits they are written with. A double has 53 bits: two IDs of 18 digits could become one, so
//! that one user is let through, or forwarded, as another.

use std::fmt;

use serde_json::value::RawValue;

/// A JSON number (RFC 8259 section 6) as it is written. Two are equal if their values are, whatever their size.
#[derive(Clone)]
pub(crate) struct Number(Box<str>);

impl Number {
    /// `None` for a text that is no JSON number.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && text.ends_with(|last: char| last.is_ascii_digit())
            && serde_json::from_str::<&RawValue>(text).is_ok();
        is_number.then(|| Self(text.into()))
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a number that is written like this has the same value.
    pub(crate) fn is_value_of(&self, written: &str) -> bool {
        Decimal::of(&self.0) == Decimal::of(written)
    }

    /// Whether every number of the same value is recognised. Not with an exponent that only a wide integer holds.
    pub(crate) fn is_comparable(&self) -> bool {
        Decimal::of(&self.0).exponent.unsigned_abs() < MAX_EXPONENT
    }

    /// The double of exactly this value, if there is one.
    pub(crate) fn exact_f64(&self) -> Option<f64> {
        let double: f64 = self.0.parse().ok().filter(|double: &f64| double.is_finite())?;
        let is_short_integer = self.0.len() <= f64::DIGITS as usize && !self.0.contains(['.', 'e', 'E']);
        (is_short_integer || self.is_value_of(&format!("{double:.MAX_FRACTION_DIGITS$e}"))).then_some(double)
    }
}

/// The most significant digits that a double can have is 767, one of them before the point.
const MAX_FRACTION_DIGITS: usize = 766;

/// By value.
impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.is_value_of(&other.0)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(value.to_string().into())
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self(value.to_string().into())
    }
}

/// Larger exponents are not told apart: see [`Number::is_comparable`]. A text with so large an exponent in its plain
/// value would need that many digits.
const MAX_EXPONENT: u128 = 1_000_000_000_000_000_000;

/// A value as `digits * 10^exponent`, in the one form without zeros at either end. The exponent is compared, never
/// expanded: `1e999999999` costs no more than its eleven characters.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    /// False for zero.
    is_negative: bool,
    /// No zero is first or last; empty for zero.
    digits: Vec<u8>,
    /// 0 for zero. Saturates, far beyond [`MAX_EXPONENT`].
    exponent: i128,
}

impl Decimal {
    /// The value of a JSON number.
    fn of(text: &str) -> Self {
        let (significand, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let magnitude = significand.strip_prefix('-').unwrap_or(significand);
        let (integer, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
        let zero = |digit: &u8| *digit == b'0';
        let mut digits: Vec<u8> =
            integer.bytes().chain(fraction.bytes()).skip_while(|digit| zero(digit)).collect();
        let written = digits.len();
        let kept = digits.iter().rposition(|digit| !zero(digit)).map_or(0, |last| last + 1);
        digits.truncate(kept);
        if digits.is_empty() {
            return Self { is_negative: false, digits, exponent: 0 };
        }
        let cut = i128::try_from(written - kept).unwrap_or(i128::MAX);
        let behind_the_point = i128::try_from(fraction.len()).unwrap_or(i128::MAX);
        let exponent = saturating(exponent).saturating_add(cut).saturating_sub(behind_the_point);
        Self { is_negative: significand.starts_with('-'), digits, exponent }
    }
}

/// An exponent as written: digits, with or without a sign.
fn saturating(exponent: &str) -> i128 {
    exponent.parse().unwrap_or(if exponent.starts_with('-') { i128::MIN / 2 } else { i128::MAX / 2 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::new(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn only_json_numbers() {
        for text in ["0", "-0", "1.50", "1e3", "1E+3", "-1.5e-7", "1e999", &"9".repeat(4000)] {
            assert_eq!(number(text).as_str(), text);
        }
        for text in [
            "", "-", "+1", "01", "1.", ".5", "1e", " 1", "1 ", "1\n", "NaN", "\"1\"", "[1]", "0x1", "١",
            "1_0",
        ] {
            assert!(Number::new(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn equal_by_value() {
        let same: &[&[&str]] = &[
            &["1", "1.0", "1e0", "10e-1", "0.1e1", "1E+0", "100000e-5", "1.000000000000000000000000"],
            &["0", "-0", "0.0", "0e99999999999999999999999999999999999999999999", "-0.00e-5"],
            &["-1", "-1.0", "-10e-1"],
            &["9007199254740992", "9007199254740992.0", "9.007199254740992e15"],
            &["9007199254740993"],
            &["9223372036854775807"],
            &["9223372036854775808", "9.223372036854775808e18"],
            &["9223372036854775809"],
            &["18446744073709551616"],
            &["18446744073709551617", "184467440737095516170e-1"],
            &["100000000000000000001"],
            &["100000000000000000000", "1e20", "1E20"],
            &["0.1", "1e-1", "0.10"],
            &["0.1000000000000000055511151231257827"],
            &["1e999999999", "10e999999998", "0.1e1000000000"],
            &["1e1000000000"],
            &["1e-999999999"],
            &["1e9223372036854775807"],
            &["1e9223372036854775808", "10e9223372036854775807"],
            &["-1e999999999"],
        ];
        for (at, group) in same.iter().enumerate() {
            for a in *group {
                for (other, others) in same.iter().enumerate() {
                    for b in *others {
                        assert_eq!(number(a) == number(b), at == other, "{a} and {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_exponent_that_is_not_told_from_others_is_not_comparable() {
        for (text, comparable) in [
            ("1e999999999", true),
            ("1e-999999999", true),
            ("1e999999999999999999", true),
            ("1e1000000000000000000", false),
            ("10e999999999999999999", false),
            ("1e-1000000000000000000", false),
            ("1e99999999999999999999999999999999999999999999", false),
            ("0e99999999999999999999999999999999999999999999", true),
        ] {
            assert_eq!(number(text).is_comparable(), comparable, "{text}");
        }
    }

    #[test]
    fn a_double_only_of_exactly_that_value() {
        for (text, double) in [
            ("0", Some(0.0)),
            ("-0", Some(-0.0)),
            ("7", Some(7.0)),
            ("-7.50", Some(-7.5)),
            ("1e3", Some(1000.0)),
            ("0.5", Some(0.5)),
            ("0.1", None),
            ("0.1000000000000000055511151231257827021181583404541015625", Some(0.1)),
            ("999999999999999", Some(999_999_999_999_999.0)),
            ("9007199254740992", Some(9_007_199_254_740_992.0)),
            ("9007199254740993", None),
            ("-9007199254740993", None),
            ("9007199254740994", Some(9_007_199_254_740_994.0)),
            ("123456789012345678", None),
            ("123456789012345680", Some(123_456_789_012_345_680.0)),
            ("1e20", Some(1e20)),
            ("100000000000000000001", None),
            ("1e22", Some(1e22)),
            ("1e23", None),
            ("1e308", None),
            ("1e309", None),
            ("1e999999999", None),
            ("5e-324", None),
            ("1e-999999999", None),
            ("0e999999999", Some(0.0)),
        ] {
            assert_eq!(number(text).exact_f64(), double, "{text}");
        }
        // All digits of the least double, and one more.
        let least = format!("{:.1074}", f64::from_bits(1));
        assert_eq!(number(&least).exact_f64(), Some(f64::from_bits(1)));
        assert_eq!(number(&format!("{least}1")).exact_f64(), None);
        let longest = format!("{:.1074}", f64::from_bits((1 << 52) - 1));
        assert_eq!(number(&longest).exact_f64().map(f64::to_bits), Some((1 << 52) - 1));
    }

    /// The value times 10^30 as an integer: plain arithmetic as the model of [`Decimal`].
    fn scaled(digits: i64, exponent: i32) -> i128 {
        i128::from(digits) * 10_i128.pow(u32::try_from(exponent + 12).unwrap())
    }

    /// One of the ways to write `digits * 10^exponent`.
    fn written(digits: i64, exponent: i32, shift: usize, zeros: usize, sign: &str) -> String {
        let minus = if digits < 0 { "-" } else { "" };
        let plain = digits.unsigned_abs().to_string();
        // The point `shift` places from the right, and zeros behind all of it.
        let padded = format!("{plain:0>width$}", width = shift + 1);
        let (integer, fraction) = padded.split_at(padded.len() - shift);
        let fraction = format!("{fraction}{}", "0".repeat(zeros));
        let point = if fraction.is_empty() { "" } else { "." };
        let exponent = exponent + i32::try_from(shift).unwrap();
        let sign = if exponent < 0 { "" } else { sign };
        format!("{minus}{integer}{point}{fraction}{sign_e}{exponent}", sign_e = format_args!("e{sign}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn compares_as_integers_do(
            (a, b) in prop_oneof![
                (-2_000_000_i64..2_000_000, -2_000_000_i64..2_000_000),
                (-50_i64..50, -50_i64..50),
                any::<i32>().prop_map(|a| (i64::from(a), i64::from(a) * 10)),
            ],
            (at, bt) in (-12..12_i32, -12..12_i32),
            shifts in (0..9_usize, 0..9_usize),
            zeros in (0..4_usize, 0..4_usize),
            sign in prop_oneof![Just("+"), Just("")],
        ) {
            let (one, two) = (written(a, at, shifts.0, zeros.0, sign), written(b, bt, shifts.1, zeros.1, ""));
            prop_assert_eq!(number(&one) == number(&two), scaled(a, at) == scaled(b, bt), "{} and {}", one, two);
            prop_assert!(number(&one) == number(&written(a, at, shifts.1, zeros.1, "")));
        }

        #[test]
        fn doubles_are_exact(integer in any::<i64>(), bits in any::<u64>()) {
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "what is tested")]
            let exact = (integer as f64) as i128 == i128::from(integer);
            prop_assert_eq!(number(&integer.to_string()).exact_f64().is_some(), exact);
            let double = f64::from_bits(bits);
            if double.is_finite() {
                let all_digits = format!("{double:.766e}");
                prop_assert_eq!(number(&all_digits).exact_f64().map(f64::to_bits), Some(bits));
            }
        }
    }
}
