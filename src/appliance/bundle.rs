//! An update: kernel, initramfs and payload of one build, under one signature.
//!
//! In: the first bytes of a file. Out: what it holds and in which order, if it is signed with the
//! key that this image trusts. Must not: read the parts themselves.
//! Read first: image/bundle, which writes it; RFC 8032 (Ed25519).
//!
//! ```text
//!  "tandem update 1\n"  manifest (TOML)  empty line  signature of all that (64 bytes)
//!  kernel  initramfs  payload
//! ```

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

const MAGIC: &str = "tandem update 1\n";
const SIGNATURE_BYTES: usize = 64;
/// Of magic, manifest and signature together.
pub const HEAD_BYTES_MAX: usize = 4096;

/// What is in an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub board: String,
    pub release: String,
    /// Seconds since 1970: of two builds the later one is newer.
    pub built: u64,
    pub kernel: Part,
    pub initramfs: Part,
    pub payload: Part,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// Reads the head of an update that `key` signed; returns how long it is, too.
pub fn open(bytes: &[u8], key: &[u8]) -> Result<(Manifest, usize), String> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes()).ok_or("this is no update of tandem")?;
    let end = rest.windows(2).position(|pair| pair == b"\n\n").ok_or("its manifest has no end")?;
    let signed = &bytes[..MAGIC.len() + end + 2];
    let signature = bytes.get(signed.len()..signed.len() + SIGNATURE_BYTES);
    let signature = signature.ok_or("it ends within its signature")?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(signed, signature)
        .map_err(|_| "its signature is not by the key that this machine trusts")?;
    let text = std::str::from_utf8(&rest[..=end]).map_err(|_| "its manifest is no text")?;
    let manifest: Manifest =
        toml::from_str(text).map_err(|error| format!("its manifest: {}", error.message()))?;
    Ok((manifest, signed.len() + SIGNATURE_BYTES))
}

impl Manifest {
    /// Whether a machine of this board that runs a build of that time may take it.
    pub fn suits(&self, board: &str, built: u64, may_be_older: bool) -> Result<(), String> {
        if self.board != board {
            return Err(format!("it is for the board {}, and this is {board}", self.board));
        }
        if self.built == built {
            return Err("it is what runs here".into());
        }
        if self.built < built && !may_be_older {
            return Err("it is older than what runs here: --older takes it all the same".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    const TEXT: &str = "tandem update 1\n\
        board = \"qemu-x86_64\"\nrelease = \"0.1.0\"\nbuilt = 1700000000\n\
        kernel = { bytes = 3, sha256 = \"aa\" }\n\
        initramfs = { bytes = 4, sha256 = \"bb\" }\n\
        payload = { bytes = 5, sha256 = \"cc\" }\n\n";

    fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn update() -> Vec<u8> {
        let mut bytes = TEXT.as_bytes().to_vec();
        bytes.extend(key().sign(TEXT.as_bytes()).as_ref());
        bytes.extend(b"KKKIIIIPPPPP");
        bytes
    }

    #[test]
    fn what_is_signed_opens_and_says_where_its_parts_begin() {
        let (manifest, length) = open(&update(), key().public_key().as_ref()).unwrap();
        assert_eq!((manifest.board.as_str(), manifest.payload.bytes), ("qemu-x86_64", 5));
        assert_eq!(&update()[length..], b"KKKIIIIPPPPP");
    }

    #[test]
    fn every_bit_of_the_head_is_signed() {
        let (good, key) = (update(), key());
        let length = TEXT.len() + SIGNATURE_BYTES;
        for bit in 0..length * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad, key.public_key().as_ref()).is_err(), "bit {bit}");
        }
        for cut in 0..length {
            assert!(open(&good[..cut], key.public_key().as_ref()).is_err(), "{cut} bytes");
        }
        let why = open(&good, &[1; 32]).unwrap_err();
        assert_eq!(why, "its signature is not by the key that this machine trusts");
    }

    #[test]
    fn the_board_and_the_age_are_looked_at() {
        let (manifest, _) = open(&update(), key().public_key().as_ref()).unwrap();
        assert_eq!(manifest.suits("qemu-x86_64", 1_600_000_000, false), Ok(()));
        for (board, built, word) in [
            ("pc-x86_64", 1_600_000_000, "board"),
            ("qemu-x86_64", 1_700_000_000, "runs here"),
            ("qemu-x86_64", 1_800_000_000, "--older"),
        ] {
            assert!(manifest.suits(board, built, false).unwrap_err().contains(word), "{word}");
        }
        assert_eq!(manifest.suits("qemu-x86_64", 1_800_000_000, true), Ok(()));
    }
}
