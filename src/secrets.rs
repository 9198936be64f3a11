//! Secrets in files of their own: how they are made on one host, and taken over by the other with a
//! code that is good once.
//!
//! In: what the configuration names, random bytes, frames of the other host. Out: texts for files,
//! frames. Must not: open a socket or a file; put a secret into an error. Read first: RFC 5869
//! (HKDF), RFC 8439 (ChaCha20-Poly1305). Whoever listens on the link, or sits in its middle, would
//! have to guess the code, which has 100 bits; so nothing slow is needed to guard it.
//!
//! ```text
//!  taker                                             offerer, who told the code to a person
//!    32 random bytes  ------------------------------------>
//!                     <------------------------------------  32 random bytes
//!      both: two keys from the code and the 64 bytes
//!    sealed: its configuration's digest  ----------------->  a wrong code ends here
//!                     <------------------------------------  sealed: the files
//!    sealed: what became of them  ------------------------>
//! ```

mod code;

use std::collections::BTreeMap;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use serde::{Deserialize, Serialize};

use crate::config::{SecretFile, SecretKind};
use crate::crypt::Hash;

pub use code::Code;

/// What each side sends first.
pub const NONCE_BYTES: usize = 32;

/// What one frame holds at most: some dozens of files.
pub const FRAME_BYTES_MAX: usize = 32 * 1024;

/// Random bytes that `make` wants.
pub const RANDOM_BYTES: usize = 40;

/// A secret that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What its file holds.
    pub text: String,
    /// What a person has to know, where that is another text.
    pub told: Option<String>,
}

/// A new secret of that kind.
pub fn make(kind: SecretKind, random: [u8; RANDOM_BYTES]) -> Result<Made, String> {
    let letters = |count| code::letters(random.iter().take(count)).to_ascii_lowercase();
    let plain = |text| Made { text, told: None };
    Ok(match kind {
        // 120 bits; MASTER_PASSWORD of CHANGE MASTER has 32 characters at most.
        SecretKind::Key | SecretKind::Password => plain(letters(24)),
        // All that PASS carries.
        SecretKind::Vrrp => plain(letters(8)),
        SecretKind::Console => {
            let password = letters(16);
            let salt = random.last_chunk().copied().unwrap_or_default();
            let hash = Hash::make(password.as_bytes(), salt).ok_or("it cannot be hashed")?;
            Made { text: hash, told: Some(password) }
        }
    })
}

/// Every file once. One that is named for two things of different kinds cannot be made.
pub fn by_path(files: &[SecretFile]) -> Result<BTreeMap<&str, &SecretFile>, String> {
    let mut paths = BTreeMap::<&str, &SecretFile>::new();
    for file in files {
        let first = paths.entry(&file.path).or_insert(file);
        if first.kind != file.kind {
            return Err(format!(
                "{} is named for {} and for {}, which are not of one kind: name two files",
                file.path, first.name, file.name
            ));
        }
    }
    Ok(paths)
}

/// What the offerer hands over: each file's path and text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    pub files: BTreeMap<String, String>,
}

impl Parcel {
    /// Of these, the files that this host's configuration names and that are not here yet. Nothing
    /// is taken where one is missing or would have to be replaced.
    pub fn wanted(
        &self,
        files: &[SecretFile],
        mut here: impl FnMut(&str) -> Option<String>,
    ) -> Result<Vec<(&str, &str)>, String> {
        let mut wanted = Vec::new();
        for path in by_path(files)?.into_keys() {
            let (path, text) = self.files.get_key_value(path).ok_or_else(|| {
                format!("the other host's configuration names no {path}: make both one text")
            })?;
            match here(path) {
                None => wanted.push((path.as_str(), text.as_str())),
                Some(own) if own == *text => {}
                Some(_) => {
                    return Err(format!(
                        "{path} is here already, and is another one: remove it if the other \
                         host's is right; nothing was taken"
                    ));
                }
            }
        }
        Ok(wanted)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Offer,
    Take,
}

/// One conversation's two directions.
#[derive(Debug)]
pub struct Channel {
    ours: Direction,
    theirs: Direction,
}

#[derive(Debug)]
struct Direction {
    key: LessSafeKey,
    count: u64,
}

impl Direction {
    fn new(secret: &hkdf::Prk, name: &[u8]) -> Self {
        let parts = [name];
        let okm = secret.expand(&parts, &CHACHA20_POLY1305).expect("HKDF gives a key's length");
        Self { key: LessSafeKey::new(UnboundKey::from(okm)), count: 0 }
    }

    /// Each key's first message has the number 0.
    fn nonce(&mut self) -> Nonce {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        Nonce::assume_unique_for_key(bytes)
    }
}

impl Channel {
    /// `nonces`: what the taker sent, then what the offerer sent.
    #[must_use]
    pub fn new(side: Side, code: &Code, nonces: [[u8; NONCE_BYTES]; 2]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, nonces.as_flattened());
        let secret = salt.extract(code.letters());
        let taker = Direction::new(&secret, b"tandem secrets 1 taker");
        let offerer = Direction::new(&secret, b"tandem secrets 1 offerer");
        match side {
            Side::Offer => Self { ours: offerer, theirs: taker },
            Side::Take => Self { ours: taker, theirs: offerer },
        }
    }

    pub fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        let mut sealed = message.to_vec();
        let nonce = self.ours.nonce();
        let done = self.ours.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed);
        done.expect("a message is far shorter than the cipher's limit");
        sealed
    }

    /// `None`: it was sealed with another code, or changed on its way.
    pub fn open(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let nonce = self.theirs.nonce();
        let message = self.theirs.key.open_in_place(nonce, Aad::empty(), &mut bytes).ok()?;
        Some(message.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCES: [[u8; 32]; 2] = [[1; 32], [2; 32]];

    fn file(name: &str, path: &str, kind: SecretKind) -> SecretFile {
        SecretFile { name: name.into(), path: path.into(), kind }
    }

    #[test]
    fn only_the_code_opens_and_each_message_once() {
        let code = Code::new([7; Code::LETTERS]);
        let mut offer = Channel::new(Side::Offer, &code, NONCES);
        let mut take = Channel::new(Side::Take, &code, NONCES);
        let sealed = take.seal(b"digest");
        assert_eq!(offer.open(&sealed).as_deref(), Some(&b"digest"[..]));
        assert_eq!(offer.open(&sealed), None, "replayed");
        let mut other = Channel::new(Side::Offer, &Code::new([8; Code::LETTERS]), NONCES);
        assert_eq!(other.open(&sealed), None);
        let mut other = Channel::new(Side::Offer, &code, [[1; 32], [3; 32]]);
        assert_eq!(other.open(&sealed), None, "of another conversation");
        let mut reflected = Channel::new(Side::Take, &code, NONCES);
        assert_eq!(reflected.open(&sealed), None, "sent back to its sender");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(Channel::new(Side::Offer, &code, NONCES).open(&changed), None);
        }
        let mut offer = Channel::new(Side::Offer, &code, NONCES);
        assert_eq!(take.open(&offer.seal(b"files")).as_deref(), Some(&b"files"[..]));
    }

    #[test]
    fn what_is_made_is_what_the_configuration_takes() {
        let random = std::array::from_fn(|index| u8::try_from(index * 7 % 256).unwrap_or(0));
        let of = |kind| make(kind, random).expect("made");
        assert_eq!(of(SecretKind::Key).text.len(), 24);
        assert_eq!(of(SecretKind::Vrrp).text.len(), 8);
        let Made { text, told } = of(SecretKind::Console);
        let hash = Hash::parse(&text).expect("a hash");
        assert!(hash.fits(told.expect("a password").as_bytes()));
    }

    #[test]
    fn a_file_for_two_kinds_of_things_is_refused() {
        let mut files = vec![
            file("repl.password", "/s/a", SecretKind::Password),
            file("sql.user \"app\"", "/s/a", SecretKind::Password),
        ];
        assert_eq!(by_path(&files).expect("one kind").len(), 1);
        files.push(file("vrrp.password", "/s/a", SecretKind::Vrrp));
        let why = by_path(&files).expect_err("two kinds");
        assert!(why.contains("for repl.password and for vrrp.password"), "{why}");
    }

    #[test]
    fn nothing_is_taken_that_would_replace_or_leave_a_gap() {
        let files = [
            file("peer.key", "/s/key", SecretKind::Key),
            file("repl.password", "/s/repl", SecretKind::Password),
        ];
        let pairs = [("/s/key", "k"), ("/s/repl", "r"), ("/s/other", "o")];
        let files_of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
        };
        let parcel = Parcel { files: files_of(&pairs) };
        assert_eq!(parcel.wanted(&files, |_| None), Ok(pairs[..2].to_vec()));
        let here = |own: &'static str| move |path: &str| (path == "/s/key").then(|| own.to_owned());
        assert_eq!(parcel.wanted(&files, here("k")), Ok(pairs[1..2].to_vec()));
        assert!(parcel.wanted(&files, here("x")).is_err_and(|why| why.contains("remove it")));
        let parcel = Parcel { files: files_of(&pairs[..1]) };
        assert!(parcel.wanted(&files, |_| None).is_err_and(|why| why.contains("one text")));
    }
}
