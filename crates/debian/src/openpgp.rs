//! Who signed a repository's index, and whether that may be believed.
//!
//! The mathematics is the `pgp` crate's; the policy is ours, and there is no other way to a [`Verified`] text:
//!
//! - one good signature by one trusted key is enough;
//! - the signing key and its primary key must be bound by a self-signature that verifies, be allowed to sign (key
//!   flags), not be revoked by any revocation that verifies, and not be expired, neither when the signature was made
//!   nor now;
//! - hashes are at least SHA-256, for the signature and for what binds the key; RSA keys have at least 2048 bits;
//! - a signature must not be from the future and not be past its own end;
//! - nothing but white space may stand around the signed text.

use std::fmt;

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{Fingerprint, KeyDetails, PublicParams, Tag};

use crate::time;

/// How far ahead of `now` a signature may be made: clocks differ a little.
pub const CLOCK_TOLERANCE: i64 = 600;

/// The most signatures that one text may have: Debian's have two or three, each costs time, and each may be told of.
const MOST_SIGNATURES: usize = 32;
/// The most characters of the library's own words in a message.
const LONGEST_QUOTE: usize = 200;

/// The keys of Debian's archive for bookworm and trixie: file name, primary fingerprint, the fingerprints of all
/// keys in it that sign, and the file itself.
pub const DEBIAN_KEYS: [DebianKey; 6] = [
    DebianKey {
        name: "debian-archive-bookworm-automatic",
        fingerprints: &[
            "b8b80b5b623eab6ad8775c45b7c5d7d6350947f8",
            "4cb50190207b4758a3f73a796ed0e7b82643e131",
        ],
        armor: include_bytes!("../keys/debian-archive-bookworm-automatic.asc"),
    },
    DebianKey {
        name: "debian-archive-bookworm-security-automatic",
        fingerprints: &[
            "05ab90340c0c5e797f44a8c8254cf3b5aec0a8f0",
            "b0cab9266e8c3929798b3eeebde6d2b9216ec7a8",
        ],
        armor: include_bytes!("../keys/debian-archive-bookworm-security-automatic.asc"),
    },
    DebianKey {
        name: "debian-archive-bookworm-stable",
        fingerprints: &["4d64fec119c2029067d6e791f8d2585b8783d481"],
        armor: include_bytes!("../keys/debian-archive-bookworm-stable.asc"),
    },
    DebianKey {
        name: "debian-archive-trixie-automatic",
        fingerprints: &[
            "04b54c3cdca79751b16bc6b5225629df75b188bd",
            "b8e5f13176d2a7a75220028078dba3bc47ef2265",
        ],
        armor: include_bytes!("../keys/debian-archive-trixie-automatic.asc"),
    },
    DebianKey {
        name: "debian-archive-trixie-security-automatic",
        fingerprints: &[
            "5e04a1e3223a19a20706e20f9904613d4cce68c6",
            "89c87acea5dd6b8e6a7068808e9f831205b4ba95",
        ],
        armor: include_bytes!("../keys/debian-archive-trixie-security-automatic.asc"),
    },
    DebianKey {
        name: "debian-archive-trixie-stable",
        fingerprints: &["41587f7db8c774bccf131416762f67a0b2c39de4"],
        armor: include_bytes!("../keys/debian-archive-trixie-stable.asc"),
    },
];

/// One key file of Debian's archive.
#[derive(Clone, Copy, Debug)]
pub struct DebianKey {
    /// The file's name without its ending.
    pub name: &'static str,
    /// Fingerprints in lower-case hexadecimal digits, the primary key's first.
    pub fingerprints: &'static [&'static str],
    /// The key, ASCII-armoured.
    pub armor: &'static [u8],
}

/// The keys that are trusted.
#[derive(Clone, Debug)]
pub struct KeyRing {
    certificates: Vec<(String, SignedPublicKey)>,
}

/// Key bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{name}: no OpenPGP public key can be read from it: {what}")]
pub struct KeyError {
    /// What the bytes are called.
    pub name: String,
    /// What is wrong.
    pub what: String,
}

/// A text whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signed text, lines ending in a line feed, without the armour around it.
    pub text: String,
    /// Fingerprint of the key that made the signature which counts, in lower-case hexadecimal digits.
    pub fingerprint: String,
    /// When it was made, in seconds since 1970.
    pub signed_at: i64,
}

/// Why a signed text is not believed.
#[derive(Debug, thiserror::Error)]
pub enum OpenPgpError {
    /// The file is no clear-signed text, or holds something else too.
    #[error("{file}: no usable OpenPGP signed text: {what}")]
    Format {
        /// The file or address.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Not one signature is good.
    #[error("{file}: no good signature by a trusted key.{}", list(problems))]
    NoGoodSignature {
        /// The file or address.
        file: String,
        /// One problem for each signature.
        problems: Vec<SignatureProblem>,
    },
}

impl OpenPgpError {
    /// Whether another date on this machine's clock might have made a signature good.
    pub fn is_of_another_time(&self) -> bool {
        let of_time = |problem: &SignatureProblem| {
            matches!(problem.what, Flaw::Future { .. } | Flaw::SignatureExpired(_) | Flaw::KeyExpired(_))
        };
        matches!(self, Self::NoGoodSignature { problems, .. } if problems.iter().any(of_time))
    }
}

/// What the library says, which may quote what it read without end.
fn short(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn list(problems: &[SignatureProblem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// What is wrong with one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureProblem {
    /// The key's fingerprint or, when only that is known, its 16-digit id.
    pub key: String,
    /// What is wrong.
    pub what: Flaw,
}

/// The ways in which a signature can be no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No trusted key has this id.
    UnknownKey,
    /// The text is not what was signed, or the signature is damaged.
    Wrong,
    /// The signature's kind or version is not one of a signed text.
    Kind,
    /// A hash that can be forged, or one that is not known.
    Hash(String),
    /// A key that is too short or of a kind that is not believed.
    WeakKey(String),
    /// Made after `now`.
    Future {
        /// When it claims to be made.
        made: i64,
        /// The time it was checked at.
        now: i64,
    },
    /// The signature's own end has passed.
    SignatureExpired(i64),
    /// The key's end had passed, when it signed or now.
    KeyExpired(i64),
    /// The key was revoked by its owner.
    Revoked,
    /// The key may not sign.
    NotForSigning,
    /// No self-signature that can be believed binds the key.
    Unbound,
    /// The signature demands something this program does not know.
    Critical,
}

impl fmt::Display for SignatureProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: ", self.key)?;
        match &self.what {
            Flaw::UnknownKey => f.write_str(
                "not among the trusted keys. Use a mirror of Debian's own files, or name the file of the mirror's keys in \
                 distribution.signed_by",
            ),
            Flaw::Wrong => f.write_str("the text is not what was signed: it was changed or cut off. Try again, or use another mirror"),
            Flaw::Kind => f.write_str("it is not a signature over a text"),
            Flaw::Hash(name) => write!(f, "it rests on {name}, which is not believed; SHA-256 is the least"),
            Flaw::WeakKey(what) => write!(f, "{what} is not believed"),
            Flaw::Future { made, now } => write!(
                f,
                "it was made at {}, but it is {}: this machine's clock may be wrong",
                time::show(*made),
                time::show(*now)
            ),
            Flaw::SignatureExpired(end) => write!(f, "the signature was good until {}", time::show(*end)),
            Flaw::KeyExpired(end) => {
                write!(f, "the key expired at {}", time::show(*end))
            }
            Flaw::Revoked => f.write_str("its owner has revoked it"),
            Flaw::NotForSigning => f.write_str("it is not allowed to sign (key flags)"),
            Flaw::Unbound => f.write_str("no self-signature with at least SHA-256 binds it"),
            Flaw::Critical => f.write_str("it carries a critical condition that this program does not know"),
        }
    }
}

impl KeyRing {
    /// A ring without keys: nothing can be verified with it.
    pub fn empty() -> Self {
        Self { certificates: Vec::new() }
    }

    /// The keys of Debian's archive that this program carries.
    pub fn debian() -> Result<Self, KeyError> {
        let mut ring = Self::empty();
        DEBIAN_KEYS.iter().try_for_each(|key| ring.add(key.name, key.armor))?;
        Ok(ring)
    }

    /// Adds all public keys in `bytes`, ASCII-armoured or binary. `name` names them in errors.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
        let fail = |what: String| KeyError { name: name.to_owned(), what };
        let armored = bytes.trim_ascii_start().starts_with(b"-----BEGIN");
        let keys: Box<dyn Iterator<Item = pgp::errors::Result<SignedPublicKey>>> = if armored {
            SignedPublicKey::from_armor_many_buf(bytes).map_err(|error| fail(short(&error)))?.0
        } else {
            SignedPublicKey::from_bytes_many(bytes).map_err(|error| fail(short(&error)))?
        };
        let before = self.certificates.len();
        for key in keys {
            self.certificates.push((name.to_owned(), key.map_err(|error| fail(short(&error)))?));
        }
        if self.certificates.len() == before {
            return Err(fail("there is none".into()));
        }
        Ok(())
    }

    /// The fingerprints of all keys, in lower-case hexadecimal digits: each primary key followed by its subkeys.
    pub fn fingerprints(&self) -> Vec<String> {
        let all = self.certificates.iter().flat_map(|(_, key)| {
            let subkeys = key.public_subkeys.iter().map(|subkey| subkey.fingerprint());
            std::iter::once(key.fingerprint()).chain(subkeys)
        });
        all.map(|fingerprint| format!("{fingerprint:x}")).collect()
    }

    /// Checks a clear-signed text at the time `now` (seconds since 1970). `file` names it in errors.
    pub fn verify(&self, file: &str, bytes: &[u8], now: i64) -> Result<Verified, OpenPgpError> {
        let fail = |what: &str| OpenPgpError::Format { file: file.to_owned(), what: what.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| fail("it is not UTF-8"))?;
        if !text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----") {
            return Err(fail("it does not begin with -----BEGIN PGP SIGNED MESSAGE-----"));
        }
        if text.contains('\0') {
            return Err(fail("it holds a NUL byte"));
        }
        if text.matches("-----BEGIN PGP SIGNATURE-----").count() != 1 {
            return Err(fail("there must be one block of signatures, no more and no less"));
        }
        let (message, _) = CleartextSignedMessage::from_string(text).map_err(|error| fail(&short(&error)))?;
        if message.signatures().is_empty() {
            return Err(fail("there is no signature in it"));
        }
        if message.signatures().len() > MOST_SIGNATURES {
            return Err(fail(&format!("it has more than {MOST_SIGNATURES} signatures")));
        }
        let signed = message.signed_text();
        let mut problems = Vec::new();
        for signature in message.signatures() {
            match self.check(signature, signed.as_bytes(), now) {
                Ok((fingerprint, signed_at)) => {
                    // What is handed out is what was hashed, not what the file looks like.
                    let text = signed.replace("\r\n", "\n");
                    return Ok(Verified { text, fingerprint: format!("{fingerprint:x}"), signed_at });
                }
                Err(problem) => problems.push(problem),
            }
        }
        Err(OpenPgpError::NoGoodSignature { file: file.to_owned(), problems })
    }

    fn check(
        &self,
        signature: &Signature,
        text: &[u8],
        now: i64,
    ) -> Result<(Fingerprint, i64), SignatureProblem> {
        let mut problem = SignatureProblem { key: claimed_issuer(signature), what: Flaw::UnknownKey };
        for (_, certificate) in &self.certificates {
            let primary = claims(signature, certificate).then_some(None);
            let subkeys =
                certificate.public_subkeys.iter().filter(|subkey| claims(signature, *subkey)).map(Some);
            for subkey in primary.into_iter().chain(subkeys) {
                let fingerprint =
                    subkey.map_or_else(|| certificate.fingerprint(), |subkey| subkey.fingerprint());
                match check_with(certificate, subkey, signature, text, now) {
                    Ok(made) => return Ok((fingerprint, made)),
                    Err(what) => problem = SignatureProblem { key: format!("{fingerprint:x}"), what },
                }
            }
        }
        Err(problem)
    }
}

/// Whether a signature says that it is by this key. It may lie: only the mathematics decides.
fn claims(signature: &Signature, key: &impl KeyDetails) -> bool {
    signature.issuer_fingerprint().contains(&&key.fingerprint())
        || signature.issuer_key_id().contains(&&key.legacy_key_id())
}

fn claimed_issuer(signature: &Signature) -> String {
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("{fingerprint:x}");
    }
    signature.issuer_key_id().first().map_or_else(|| "of no name".to_owned(), |id| id.to_string())
}

/// Checks one signature against one key of a certificate: first what costs nothing, then the mathematics.
fn check_with(
    certificate: &SignedPublicKey,
    subkey: Option<&SignedPublicSubKey>,
    signature: &Signature,
    text: &[u8],
    now: i64,
) -> Result<i64, Flaw> {
    if signature.typ() != Some(SignatureType::Text) {
        return Err(Flaw::Kind);
    }
    let made = signature_basics(signature, now)?;
    match subkey {
        None => strong_key(certificate.public_params())?,
        Some(subkey) => {
            strong_key(certificate.public_params())?;
            strong_key(subkey.public_params())?;
        }
    }
    let verified = match subkey {
        None => signature.verify(certificate, text),
        Some(subkey) => signature.verify(subkey, text),
    };
    verified.map_err(|_| Flaw::Wrong)?;
    let primary_may_sign = check_primary(certificate, made, now)?;
    match subkey {
        None if !primary_may_sign => Err(Flaw::NotForSigning),
        None => Ok(made),
        Some(subkey) => check_subkey(certificate, subkey, made, now).map(|()| made),
    }
}

/// What must hold for every signature, whatever it signs: a strong hash, a time in the past, no unknown demands.
fn signature_basics(signature: &Signature, now: i64) -> Result<i64, Flaw> {
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => {}
        Some(other) => return Err(Flaw::Hash(other.to_string())),
        None => return Err(Flaw::Kind),
    }
    let config = signature.config().ok_or(Flaw::Kind)?;
    let unknown = |data: &SubpacketData| {
        matches!(
            data,
            SubpacketData::Other(..) | SubpacketData::Experimental(..) | SubpacketData::Notation(_)
        )
    };
    if config.hashed_subpackets().any(|subpacket| subpacket.is_critical && unknown(&subpacket.data)) {
        return Err(Flaw::Critical);
    }
    let made = i64::from(signature.created().ok_or(Flaw::Kind)?.as_secs());
    if made > now.saturating_add(CLOCK_TOLERANCE) {
        return Err(Flaw::Future { made, now });
    }
    if let Some(lifetime) = signature.signature_expiration_time().filter(|lifetime| lifetime.as_secs() > 0) {
        let end = made + i64::from(lifetime.as_secs());
        if end <= now {
            return Err(Flaw::SignatureExpired(end));
        }
    }
    Ok(made)
}

fn strong_key(params: &PublicParams) -> Result<(), Flaw> {
    match params {
        PublicParams::RSA(rsa) => {
            // The modulus comes first: its length in bits, then its bytes.
            let mut bytes = Vec::new();
            rsa.to_writer(&mut bytes).map_err(|_| Flaw::WeakKey("an RSA key that cannot be read".into()))?;
            let bits = bytes.first_chunk().map_or(0, |length| u16::from_be_bytes(*length));
            if bits < 2048 {
                return Err(Flaw::WeakKey(format!("an RSA key of {bits} bits")));
            }
            Ok(())
        }
        PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_)
        | PublicParams::ECDSA(_) => Ok(()),
        _ => Err(Flaw::WeakKey("a key that is neither RSA nor of an elliptic curve".into())),
    }
}

/// The end of a key's life, if it has one, as the signature that binds it says.
fn check_expiry(created: i64, binding: &Signature, made: i64, now: i64) -> Result<(), Flaw> {
    let lifetime = binding.key_expiration_time().map_or(0, |lifetime| i64::from(lifetime.as_secs()));
    let end = created + lifetime;
    if lifetime > 0 && (end <= made || end <= now) { Err(Flaw::KeyExpired(end)) } else { Ok(()) }
}

/// The newest of the signatures that is acceptable; the others only tell of the past.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: i64) -> Option<&'a Signature> {
    signatures
        .filter(|signature| signature_basics(signature, now).is_ok())
        .max_by_key(|signature| signature.created())
}

/// Checks a certificate's primary key; says whether it may sign texts itself.
fn check_primary(certificate: &SignedPublicKey, made: i64, now: i64) -> Result<bool, Flaw> {
    let primary = &certificate.primary_key;
    let details = &certificate.details;
    // A revocation counts whatever its hash, date or reason: it can only make us refuse more.
    if details.revocation_signatures.iter().any(|revocation| revocation.verify_key(primary).is_ok()) {
        return Err(Flaw::Revoked);
    }
    let direct = details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
    let users = details.users.iter().filter_map(|user| {
        let good =
            |signature: &&Signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        let revoked =
            user.signatures.iter().filter(good).any(|one| one.typ() == Some(SignatureType::CertRevocation));
        if revoked { None } else { newest(user.signatures.iter().filter(good), now) }
    });
    let binding = newest(direct.chain(users), now).ok_or(Flaw::Unbound)?;
    check_expiry(i64::from(primary.created_at().as_secs()), binding, made, now)?;
    Ok(binding.key_flags().sign())
}

fn check_subkey(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    made: i64,
    now: i64,
) -> Result<(), Flaw> {
    let primary = &certificate.primary_key;
    let verified =
        subkey.signatures.iter().filter(|one| one.verify_subkey_binding(primary, &subkey.key).is_ok());
    let (revocations, bindings): (Vec<_>, Vec<_>) =
        verified.partition(|one| one.typ() == Some(SignatureType::SubkeyRevocation));
    if !revocations.is_empty() {
        return Err(Flaw::Revoked);
    }
    let binding = newest(bindings.into_iter(), now).ok_or(Flaw::Unbound)?;
    check_expiry(i64::from(subkey.key.created_at().as_secs()), binding, made, now)?;
    if !binding.key_flags().sign() {
        return Err(Flaw::NotForSigning);
    }
    // The subkey must agree to belong to this primary key, else anybody could adopt it.
    let back = binding.embedded_signature().ok_or(Flaw::Unbound)?;
    signature_basics(back, now).map_err(|_| Flaw::Unbound)?;
    back.verify_primary_key_binding(&subkey.key, primary).map_err(|_| Flaw::Unbound)
}
