//! Validity: from when and until when a certificate holds.
//!
//! In: a certificate in DER. Out: two times of the wall clock. Must not: believe or verify
//! anything. Read first: RFC 5280, 4.1 (the order of the fields) and 4.1.2.5 (the two forms of a
//! time); X.690, 8.1 (tag, length, content).

use std::str;

/// When a certificate holds, in Unix seconds; both ends are within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Validity {
    /// `None` where the bytes are no certificate.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut fields, _) = element(certificate)?;
        // The version is left out by certificates of version 1.
        if let (VERSION, _, rest) = element(fields)? {
            fields = rest;
        }
        for _ in ["serialNumber", "signature", "issuer"] {
            (_, _, fields) = element(fields)?;
        }
        let (_, validity, _) = element(fields)?;
        let (tag, from, rest) = element(validity)?;
        let from = seconds(tag, from)?;
        let (tag, until, _) = element(rest)?;
        Some(Self { from, until: seconds(tag, until)? })
    }
}

const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element: its tag and content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = bytes.split_first_chunk()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, content) = rest.split_at_checked(usize::from(first & 0x7f))?;
        length = digits
            .iter()
            .try_fold(0usize, |sum, &digit| sum.checked_mul(256)?.checked_add(digit.into()))?;
        rest = content;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// "YYMMDDHHMMSSZ" or "YYYYMMDDHHMMSSZ".
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = text.split_at_checked(match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    })?;
    let year = number(year)?;
    let year = match tag {
        UTC_TIME if year < 50 => year + 2000,
        UTC_TIME => year + 1900,
        _ => year,
    };
    let field = |index: usize| number(rest.get(index * 2..index * 2 + 2)?);
    let (month, day) = (field(0)?, field(1)?);
    let of_day = field(2)? * 3600 + field(3)? * 60 + field(4)?;
    (rest.len() == 10 && (1..=12).contains(&month))
        .then(|| days(year, month, day) * 86_400 + of_day)
}

fn number(digits: &str) -> Option<i64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Days from 1970 on. Years that begin in March have the leap day at their end.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229235959Z", Some(1_709_251_199)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "20500101000000Z", None),
            (UTC_TIME, "2402292359Z", None),
            (UTC_TIME, "241329235959Z", None),
            (UTC_TIME, "24022923595+Z", None),
            (UTC_TIME, "240229235959", None),
            (2, "700101000000Z", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_tells_its_times_and_part_of_one_nothing() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.not_before = rcgen::date_time_ymd(2020, 3, 1);
        params.not_after = rcgen::date_time_ymd(2051, 1, 1);
        let certificate = params.self_signed(&key).expect("signs");
        let certificate: &[u8] = certificate.der();
        let expected = Validity { from: 1_583_020_800, until: 2_556_144_000 };
        assert_eq!(Validity::of(certificate), Some(expected));
        for end in 0..certificate.len() {
            assert_eq!(Validity::of(certificate.get(..end).unwrap_or_default()), None, "{end}");
        }
        for at in 0..certificate.len() {
            let mut damaged = certificate.to_vec();
            damaged[at] ^= 0x80;
            let _any = Validity::of(&damaged);
        }
    }
}
