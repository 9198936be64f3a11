//! Hashes of passwords as crypt(5) writes them: SHA-256 (`$5$`) and SHA-512 (`$6$`).
//!
//! In: text, passwords. Out: whether they fit. Must not: keep a password.

use sha_crypt::{Sha256Params, Sha512Params, sha256_crypt_b64, sha512_crypt_b64};

use crate::limits;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    is_512: bool,
    rounds: usize,
    salt: String,
    value: String,
}

/// The characters of a salt (crypt(5)).
const SALT: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SALT_BYTES: usize = 16;

impl Hash {
    /// `$5$` or `$6$`, perhaps `rounds=N$`, salt, `$`, hash.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (is_512, rest) = match text.split_at_checked(3)? {
            ("$5$", rest) => (false, rest),
            ("$6$", rest) => (true, rest),
            _ => return None,
        };
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(rest) => {
                let (rounds, rest) = rest.split_once('$')?;
                (rounds.parse().ok()?, rest)
            }
            None => (sha_crypt::ROUNDS_DEFAULT, rest),
        };
        let (salt, value) = rest.split_once('$')?;
        let length = if is_512 { 86 } else { 43 };
        let is_sane = rounds <= limits::WEB_PASSWORD_ROUNDS_MAX && value.len() == length;
        is_sane.then(|| Self { is_512, rounds, salt: salt.into(), value: value.into() })
    }

    #[must_use]
    pub fn fits(&self, password: &[u8]) -> bool {
        let salt = self.salt.as_bytes();
        let made = if self.is_512 {
            Sha512Params::new(self.rounds).and_then(|it| sha512_crypt_b64(password, salt, &it))
        } else {
            Sha256Params::new(self.rounds).and_then(|it| sha256_crypt_b64(password, salt, &it))
        };
        // What was hashed tells nothing of how far two hashes agree.
        made.is_ok_and(|made| made == self.value)
    }

    /// The text of a new hash, SHA-512 in the usual number of rounds, with this salt's bits.
    #[must_use]
    pub fn make(password: &[u8], random: [u8; SALT_BYTES]) -> Option<String> {
        let letter = |byte: u8| SALT.get(usize::from(byte % 64)).copied().map(char::from);
        let salt: String = random.into_iter().filter_map(letter).collect();
        let params = Sha512Params::new(sha_crypt::ROUNDS_DEFAULT).ok()?;
        let value = sha512_crypt_b64(password, salt.as_bytes(), &params).ok()?;
        Some(format!("$6${salt}${value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_was_made_fits_its_password_alone() {
        let text = Hash::make(b"kl\xc3\xa4r", [250; SALT_BYTES]).expect("made");
        let hash = Hash::parse(&text).expect("parses");
        assert!(hash.fits(b"kl\xc3\xa4r") && !hash.fits(b"") && !hash.fits(b"klar"), "{text}");
        // openssl passwd -6 -salt saltstring secret
        let known = "$6$saltstring$AIsRs/Ee56G/tC8MEHhvReZTfx8u3rXXMl6eYrjCG9ibix19DxoMBLogd\
                     TET5Ukw9Sf7eZTITsuk0Ry5qulYz.";
        assert!(Hash::parse(known).expect("parses").fits(b"secret"));
        assert_eq!(Hash::parse("$6$salt$short"), None);
        assert_eq!(Hash::parse("secret"), None);
    }
}
