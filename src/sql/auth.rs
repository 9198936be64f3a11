//! Proofs of passwords: mysql_native_password and caching_sha2_password, made and checked.
//!
//! In: clear passwords of the configuration, salts, random bytes. Out: proofs, verdicts, the
//! RSA-encrypted password. Must not: log or keep a password, draw random bytes itself.
//! Read first: facts/sql.md section 6; MySQL internals, "Authentication Methods"; RFC 8017, 7.1.

use std::convert::Infallible;

use mysql_common::crypto::rsa::{Pkcs1OaepPadding, PublicKey, Rng};
use mysql_common::scramble::{scramble_native, scramble_sha256};
use num_bigint::BigUint;

use crate::wire::{Reader, Short};

use super::handshake::{Plugin, SALT_BYTES, Salt};

/// The proof that `password` is known; empty for an empty password, as the protocol has it.
#[must_use]
pub fn proof(plugin: Plugin, salt: &Salt, password: &str) -> Vec<u8> {
    match plugin {
        Plugin::Native => scramble_native(salt, password.as_bytes()).map(Vec::from),
        Plugin::CachingSha2 => scramble_sha256(salt, password.as_bytes()).map(Vec::from),
        Plugin::Unknown => None,
    }
    .unwrap_or_default()
}

/// Whether `given` proves `password`. Takes the same time wherever the two differ.
#[must_use]
pub fn is_proved(plugin: Plugin, salt: &Salt, password: &str, given: &[u8]) -> bool {
    let expected = proof(plugin, salt, password);
    // Some clients end an empty proof with its NUL.
    let given = if given == [0] { &[] } else { given };
    plugin != Plugin::Unknown
        && expected.len() == given.len()
        && expected.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// What a server's public key did not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// Not the PEM form of an RSA public key.
    Malformed,
    /// Too small for the password, too large to compute with, or no odd modulus of whole bytes.
    Unusable,
}

/// The password as caching_sha2_password takes it over a connection without TLS: with its NUL,
/// masked by the salt, and encrypted with the server's key. `seed` is fresh random bytes.
pub fn encrypt(password: &str, salt: &Salt, pem: &[u8], seed: Salt) -> Result<Vec<u8>, KeyError> {
    let (modulus, exponent) = parse_pem(pem).ok_or(KeyError::Malformed)?;
    let modulus = BigUint::from_bytes_be(&modulus);
    let exponent = BigUint::from_bytes_be(&exponent);
    let mut message = password.as_bytes().to_vec();
    message.push(0);
    for (byte, mask) in message.iter_mut().zip(salt.iter().cycle()) {
        *byte ^= mask;
    }
    let bits = modulus.bits();
    let room = (bits / 8).saturating_sub(2 * OAEP_HASH_BYTES + 2);
    let is_sound = bits.is_multiple_of(8)
        && (KEY_BITS_MIN..=KEY_BITS_MAX).contains(&bits)
        && modulus.bit(0)
        && exponent.bit(0)
        && exponent.bits() <= EXPONENT_BITS_MAX;
    if !is_sound || u64::try_from(message.len()).map_or(true, |length| length > room) {
        return Err(KeyError::Unusable);
    }
    let padding = Pkcs1OaepPadding::new(Seed(seed));
    Ok(PublicKey::new(modulus, exponent).encrypt_block(message, padding))
}

/// The random bytes that the hands drew, for the padding's one request of `SALT_BYTES`.
struct Seed(Salt);

impl Rng for Seed {
    type Error = Infallible;

    fn fill(&mut self, dest: &mut [u8]) -> Result<(), Infallible> {
        for (place, byte) in dest.iter_mut().zip(self.0.iter().cycle()) {
            *place = *byte;
        }
        Ok(())
    }
}

/// Modulus and exponent of a key in PEM form, PKCS #8 (what servers send) or PKCS #1.
fn parse_pem(pem: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, after) = text.split_once("-----BEGIN ")?;
    let (label, after) = after.split_once("-----")?;
    let (body, _) = after.split_once("-----END ")?;
    let der = decode_base64(body)?;
    parse_key(&der, label).ok()
}

pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::with_capacity(text.len()), 0u32, 0u32);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

fn parse_key(der: &[u8], label: &str) -> Result<(Vec<u8>, Vec<u8>), Short> {
    let mut outer = Reader::new(element(&mut Reader::new(der), SEQUENCE)?);
    let mut numbers = match label {
        "RSA PUBLIC KEY" => outer,
        "PUBLIC KEY" => {
            element(&mut outer, SEQUENCE)?;
            let mut bits = Reader::new(element(&mut outer, BIT_STRING)?);
            if bits.u8()? != 0 {
                return Err(Short);
            }
            Reader::new(element(&mut bits, SEQUENCE)?)
        }
        _ => return Err(Short),
    };
    let modulus = element(&mut numbers, INTEGER)?.to_vec();
    let exponent = element(&mut numbers, INTEGER)?.to_vec();
    Ok((modulus, exponent))
}

/// The contents of the next DER element, which must have this tag.
fn element<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<&'a [u8], Short> {
    if reader.u8()? != tag {
        return Err(Short);
    }
    let length = match reader.u8()? {
        short @ 0..=0x7f => usize::from(short),
        0x81 => usize::from(reader.u8()?),
        0x82 => usize::from(reader.u16()?),
        _ => return Err(Short),
    };
    reader.take(length)
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

const OAEP_HASH_BYTES: u64 = 20;
const _: () = assert!(SALT_BYTES == 20, "a salt is also one OAEP seed");

/// Keys beyond these bounds are refused: below, nothing fits; above, one log-in would hold the
/// loop for longer than a packet is worth (RSA-2048 with exponent 65537 takes well below 1 ms).
const KEY_BITS_MIN: u64 = 1024;
const KEY_BITS_MAX: u64 = 8192;
const EXPONENT_BITS_MAX: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = *b"abcdefghijklmnopqrst";

    #[test]
    fn a_proof_proves_its_password_only() {
        for plugin in [Plugin::Native, Plugin::CachingSha2] {
            let given = proof(plugin, &SALT, "secret");
            assert!(is_proved(plugin, &SALT, "secret", &given));
            assert!(!is_proved(plugin, &SALT, "Secret", &given));
            assert!(!is_proved(plugin, b"ABCDEFGHIJKLMNOPQRST", "secret", &given));
            assert!(!is_proved(plugin, &SALT, "secret", b""));
            assert!(!is_proved(plugin, &SALT, "secret", &given[..given.len() - 1]));
            assert!(is_proved(plugin, &SALT, "", b""));
            assert!(is_proved(plugin, &SALT, "", b"\0"));
            assert!(!is_proved(plugin, &SALT, "", &given));
        }
        assert!(!is_proved(Plugin::Unknown, &SALT, "", b""));
    }

    #[test]
    fn proofs_have_the_lengths_of_the_protocol() {
        assert_eq!(proof(Plugin::Native, &SALT, "x").len(), 20);
        assert_eq!(proof(Plugin::CachingSha2, &SALT, "x").len(), 32);
        assert!(proof(Plugin::Native, &SALT, "").is_empty());
    }

    #[test]
    fn encrypts_with_the_key_that_a_server_sends() {
        let one = encrypt("secret", &SALT, PEM, [1; 20]).expect("a sound key");
        let other = encrypt("secret", &SALT, PEM, [2; 20]).expect("a sound key");
        assert_eq!(one.len(), 256);
        assert_ne!(one, other, "the padding is random");
        assert_eq!(encrypt(&"x".repeat(213), &SALT, PEM, [1; 20]).map(|it| it.len()), Ok(256));
        assert_eq!(encrypt(&"x".repeat(214), &SALT, PEM, [1; 20]), Err(KeyError::Unusable));
    }

    #[test]
    fn what_is_encrypted_can_be_decrypted_with_the_private_exponent() {
        // The key of the OAEP example in RFC 3447's test vectors is 1024 bits long; here a made
        // one of 1024 bits with known private exponent.
        let modulus = BigUint::parse_bytes(MODULUS, 16).expect("hex");
        let private = BigUint::parse_bytes(PRIVATE, 16).expect("hex");
        let pem = pem_of(&modulus.to_bytes_be());
        let sealed = encrypt("pässword", &SALT, pem.as_bytes(), *b"0123456789abcdefghij")
            .expect("a sound key");
        let opened = BigUint::from_bytes_be(&sealed).modpow(&private, &modulus).to_bytes_be();
        let block = [vec![0; 128 - opened.len()], opened].concat();
        assert_eq!(
            unpad(&block),
            "pässword\0".bytes().zip(SALT).map(|(a, b)| a ^ b).collect::<Vec<_>>()
        );
    }

    #[test]
    fn refuses_broken_keys_without_panic() {
        for cut in 0..PEM.len() - 26 {
            assert!(encrypt("secret", &SALT, &PEM[..cut], [1; 20]).is_err(), "cut at {cut}");
        }
        for index in 0..PEM.len() * 8 {
            let mut broken = PEM.to_vec();
            broken[index / 8] ^= 1 << (index % 8);
            let _ = parse_pem(&broken);
        }
        for index in (0..PEM.len() * 8).step_by(97) {
            let mut broken = PEM.to_vec();
            broken[index / 8] ^= 1 << (index % 8);
            let _ = encrypt("secret", &SALT, &broken, [1; 20]);
        }
        assert_eq!(
            encrypt("x", &SALT, pem_of(&[1; 64]).as_bytes(), [1; 20]),
            Err(KeyError::Unusable)
        );
        assert_eq!(
            encrypt("x", &SALT, pem_of(&[0; 128]).as_bytes(), [1; 20]),
            Err(KeyError::Unusable)
        );
    }

    fn pem_of(modulus: &[u8]) -> String {
        let mut inner = vec![INTEGER, 0x81, u8::try_from(modulus.len() + 1).unwrap(), 0];
        inner.extend_from_slice(modulus);
        inner.extend_from_slice(&[INTEGER, 3, 1, 0, 1]);
        let mut der = vec![SEQUENCE, 0x81, u8::try_from(inner.len()).unwrap()];
        der.extend_from_slice(&inner);
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in der.chunks(3) {
            let mut bits = [0u8; 3];
            bits[..chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
            for place in 0..=chunk.len() {
                let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap();
                text.push(char::from(alphabet[index]));
            }
        }
        format!("-----BEGIN RSA PUBLIC KEY-----\n{text}\n-----END RSA PUBLIC KEY-----\n")
    }

    fn unpad(block: &[u8]) -> Vec<u8> {
        use sha1::{Digest, Sha1};
        let mask = |seed: &[u8], length: usize| -> Vec<u8> {
            (0u32..)
                .flat_map(|n| Sha1::digest([seed, &n.to_be_bytes()].concat()).to_vec())
                .take(length)
                .collect()
        };
        // mysql_common keeps the leading zero byte of RFC 8017 out of the block: k - 1 bytes.
        let block = &block[block.len() - 127..];
        let (seed, data) = block.split_at(20);
        let seed: Vec<u8> = seed.iter().zip(mask(data, 20)).map(|(a, b)| a ^ b).collect();
        let data: Vec<u8> = data.iter().zip(mask(&seed, 107)).map(|(a, b)| a ^ b).collect();
        let start = 20 + data[20..].iter().position(|&byte| byte == 1).expect("a 1 after zeros");
        data[start + 1..].to_vec()
    }

    const PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAxSKOcxiet8lLMn8ImyUE\n\
        bGGKob5EdRz/4wdiw12ED0GfKKTKhVnodFCfm1mdy7bKOX5QxL9skrvYodpW43eR\n\
        R5bfOzIgy1qIB8RYb6qOXRBw1oA4snBDqtUjDv/lbHLJN+IbzM4oU+e3Lt9rXyLX\n\
        VY289ewONPweXHqSCnTL91w+wkU1peIFV2QhZ+upUCdCtwOn5hnJPNgxtbklFoya\n\
        C8W3Z7Xx7He2QDJsEWAqX197efw0L6j8X8Tyd8Uwb7zUB1tfMGhHfm9EwejPAtzx\n\
        4GztQNtNMtGS2oGZLQBLV9hib4dDL92iiZeckg2LAf4GsJofLLR8mcHCRoqVbQJ1\n\
        YQIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    const MODULUS: &[u8] =
        b"cb3da08476f82ad07d9c1dbad07c0b07ca42adcab645ee0bb14ea142f7966644bd99483dbb47a98c\
        3fc5cd972d5761267c6ce38747e2cec3a7056795f77cfb4b822fdb59a41498564f35a0cf644d8c11\
        26f0723111a0fe251cefdc5dd213461224ea97a275af2f25d5cbe2fd82f50bb8ff925f93b2b6e6f2\
        3a4dadbe64c9a48f";
    const PRIVATE: &[u8] =
        b"5a72017611af9cf60d802526d6d2ece1b99bf4d56a4a32865790836956df4281c2d26cf8b3d84f56\
        8fa6ca3845c04606a78699b6c141e8fbdedf23daf4395566d8e3213c9b4e9f9a2b8ad79f541ee14a\
        c10d1f7ab89d379efa3064e66fbade59cb5c7959cabba818034b5a5581f7d82fa831e26cb94609bd\
        be609f44e8cee799";
}
