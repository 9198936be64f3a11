//! The code that a person reads on one host's console and types on the other's.
//!
//! In: random bytes, what was typed. Out: twenty letters. Must not: guess what was mistyped beyond
//! letters that look alike. Read first: Crockford's base 32.

use std::fmt;

/// No I, L, O, U: what looks like a digit is one.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 5;

/// Five bits of each byte as a letter.
pub(super) fn letters<'a>(random: impl Iterator<Item = &'a u8>) -> String {
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte % 32)).copied().map(char::from);
    random.filter_map(letter).collect()
}

/// 100 bits, good once.
#[derive(Clone, PartialEq, Eq)]
pub struct Code(String);

impl Code {
    pub const LETTERS: usize = 20;

    #[must_use]
    pub fn new(random: [u8; Self::LETTERS]) -> Self {
        Self(letters(random.iter()))
    }

    /// Small letters, missing hyphens, and what looks like a digit are all right.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let mut code = String::new();
        for letter in typed.chars().filter(|letter| !matches!(letter, '-' | ' ')) {
            let letter = match letter.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                letter => letter,
            };
            if !ALPHABET.iter().any(|&known| char::from(known) == letter) {
                return Err(format!("a code has no {letter:?}"));
            }
            code.push(letter);
        }
        if code.len() != Self::LETTERS {
            return Err(format!("a code has {} letters, not {}", Self::LETTERS, code.len()));
        }
        Ok(Self(code))
    }

    pub(super) fn letters(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, letter) in self.0.chars().enumerate() {
            if index > 0 && index % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{letter}")?;
        }
        Ok(())
    }
}

/// Never the code.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = Code::new(std::array::from_fn(|index| u8::try_from(index * 13).unwrap_or(0)));
        let shown = code.to_string();
        assert_eq!(shown.len(), 23);
        for typed in [shown.clone(), shown.to_lowercase(), shown.replace('-', " ")] {
            assert_eq!(Code::parse(&typed), Ok(code.clone()), "{typed}");
        }
        let alike = shown.replace('0', "o").replace('1', "l");
        assert_eq!(Code::parse(&alike), Ok(code));
        assert!(Code::parse(&shown[..22]).is_err_and(|why| why.contains("not 19")));
        assert!(Code::parse("abc-u").is_err_and(|why| why.contains("'U'")));
        assert!(Code::parse("ä").is_err());
    }
}
