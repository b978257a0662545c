//! OpenPGP keys and signatures with everything about them chosen by the test.

use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedKeyDetails, SignedPublicKey,
    SignedPublicSubKey, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{
    KeyFlags, RevocationCode, Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
};
use pgp::ser::Serialize;
use pgp::types::{Duration, PacketHeaderVersion, Password, SignedUser, SigningKey, Tag, Timestamp};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// When test keys are made: 2025-01-01.
pub const CREATED: i64 = 1_735_689_600;
/// When test signatures are made and, unless the test says otherwise, checked: 2025-06-01.
pub const NOW: i64 = 1_748_736_000;

/// What a test key is like.
#[derive(Clone)]
pub struct Wish {
    /// What the key follows from.
    pub seed: u64,
    /// Its algorithm.
    pub kind: KeyType,
    /// Seconds after its creation at which the key expires.
    pub lifetime: Option<u32>,
    /// Whether its flags let it sign.
    pub may_sign: bool,
    /// Whether its owner has revoked it.
    pub revoked: bool,
    /// The hash of the signatures that bind it.
    pub binding_hash: HashAlgorithm,
    /// A subkey that signs in its place.
    pub subkey: Option<SubkeyWish>,
}

/// What a subkey is like.
#[derive(Clone)]
pub struct SubkeyWish {
    /// Seconds after its creation at which it expires.
    pub lifetime: Option<u32>,
    /// Whether its flags let it sign.
    pub may_sign: bool,
    /// Whether its owner has revoked it.
    pub revoked: bool,
    /// Whether it agrees to belong to the primary key.
    pub back_signature: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            seed: 1,
            kind: KeyType::Ed25519,
            lifetime: None,
            may_sign: true,
            revoked: false,
            binding_hash: HashAlgorithm::Sha256,
            subkey: None,
        }
    }
}

impl Default for SubkeyWish {
    fn default() -> Self {
        Self { lifetime: None, may_sign: true, revoked: false, back_signature: true }
    }
}

/// A key with everything about it chosen by the test.
pub struct TestKey {
    secret: SignedSecretKey,
    /// The public half.
    pub public: SignedPublicKey,
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds.try_into().unwrap())
}

fn config(
    kind: SignatureType,
    key: &impl SigningKey,
    hash: HashAlgorithm,
    made: i64,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), hash);
    let first = [
        SubpacketData::SignatureCreationTime(time(made)),
        SubpacketData::IssuerFingerprint(key.fingerprint()),
        SubpacketData::IssuerKeyId(key.legacy_key_id()),
    ];
    config.hashed_subpackets =
        first.into_iter().chain(more).map(|data| Subpacket::regular(data).unwrap()).collect();
    config
}

fn flags(may_sign: bool, lifetime: Option<u32>) -> Vec<SubpacketData> {
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(may_sign);
    let mut data = vec![SubpacketData::KeyFlags(flags)];
    data.extend(lifetime.map(|seconds| SubpacketData::KeyExpirationTime(Duration::from_secs(seconds))));
    data
}

fn revocation() -> Vec<SubpacketData> {
    vec![SubpacketData::RevocationReason(RevocationCode::KeyCompromised, Vec::new().into())]
}

impl TestKey {
    /// Makes it; the same wish gives the same key.
    pub fn new(wish: &Wish) -> Self {
        let mut builder = SecretKeyParamsBuilder::default();
        builder.key_type(wish.kind.clone()).can_certify(true).can_sign(true).created_at(time(CREATED));
        builder.primary_user_id("Test <test@example.org>".into());
        if wish.subkey.is_some() {
            let mut subkey = SubkeyParamsBuilder::default();
            subkey.key_type(KeyType::Ed25519).can_sign(true).created_at(time(CREATED));
            builder.subkeys(vec![subkey.build().unwrap()]);
        }
        let secret = builder.build().unwrap().generate(ChaCha8Rng::seed_from_u64(wish.seed)).unwrap();
        let (primary, none) = (&secret.primary_key, Password::empty());
        let public = primary.public_key();
        let id = UserId::from_str(PacketHeaderVersion::New, "Test <test@example.org>").unwrap();
        let binding = config(
            SignatureType::CertPositive,
            primary,
            wish.binding_hash,
            CREATED,
            flags(wish.may_sign, wish.lifetime),
        )
        .sign_certification(primary, public, &none, Tag::UserId, &id)
        .unwrap();
        let revocations = wish.revoked.then(|| {
            config(SignatureType::KeyRevocation, primary, HashAlgorithm::Sha256, CREATED + 1, revocation())
                .sign_key(primary, &none, public)
                .unwrap()
        });
        let details = SignedKeyDetails::new(
            revocations.into_iter().collect(),
            Vec::new(),
            vec![SignedUser::new(id, vec![binding])],
            Vec::new(),
        );
        let subkeys = wish.subkey.iter().map(|subkey| {
            let key = &secret.secret_subkeys[0].key;
            let mut data = flags(subkey.may_sign, subkey.lifetime);
            if subkey.back_signature {
                let back = config(SignatureType::KeyBinding, key, HashAlgorithm::Sha256, CREATED, Vec::new())
                    .sign_primary_key_binding(key, key.public_key(), &none, public)
                    .unwrap();
                data.push(SubpacketData::EmbeddedSignature(Box::new(back)));
            }
            let mut signatures = vec![
                config(SignatureType::SubkeyBinding, primary, wish.binding_hash, CREATED, data)
                    .sign_subkey_binding(primary, public, &none, key.public_key())
                    .unwrap(),
            ];
            if subkey.revoked {
                let config = config(
                    SignatureType::SubkeyRevocation,
                    primary,
                    HashAlgorithm::Sha256,
                    CREATED + 1,
                    revocation(),
                );
                signatures
                    .push(config.sign_subkey_binding(primary, public, &none, key.public_key()).unwrap());
            }
            SignedPublicSubKey::new(key.public_key().clone(), signatures)
        });
        let public = SignedPublicKey::new(public.clone(), details, subkeys.collect());
        Self { secret, public }
    }

    /// The public key as a file would hold it.
    pub fn bytes(&self) -> Vec<u8> {
        self.public.to_bytes().unwrap()
    }

    /// The public key in ASCII armour.
    pub fn armored(&self) -> String {
        self.public.to_armored_string(ArmorOptions::default()).unwrap()
    }

    fn signature(
        &self,
        text: &str,
        kind: SignatureType,
        hash: HashAlgorithm,
        made: i64,
        more: Vec<SubpacketData>,
    ) -> Signature {
        let none = Password::empty();
        match self.secret.secret_subkeys.first() {
            Some(subkey) => {
                config(kind, &subkey.key, hash, made, more).sign(&subkey.key, &none, text.as_bytes())
            }
            None => config(kind, &self.secret.primary_key, hash, made, more).sign(
                &self.secret.primary_key,
                &none,
                text.as_bytes(),
            ),
        }
        .unwrap()
    }

    /// A clear-signed text, with everything about the signature chosen.
    pub fn sign_as(
        &self,
        text: &str,
        kind: SignatureType,
        hash: HashAlgorithm,
        made: i64,
        more: Vec<SubpacketData>,
    ) -> String {
        sign_with(text, |normal| vec![self.signature(normal, kind, hash, made, more)])
    }

    /// A clear-signed text with an ordinary, good signature made at [`NOW`].
    pub fn sign(&self, text: &str) -> String {
        self.sign_at(text, NOW)
    }

    /// A clear-signed text with an ordinary, good signature made at a time.
    pub fn sign_at(&self, text: &str, made: i64) -> String {
        self.sign_as(text, SignatureType::Text, HashAlgorithm::Sha512, made, Vec::new())
    }
}

fn sign_with(text: &str, signatures: impl FnOnce(&str) -> Vec<Signature>) -> String {
    let message = CleartextSignedMessage::new_many(text, |normal| Ok(signatures(normal))).unwrap();
    message.to_armored_string(ArmorOptions::default()).unwrap()
}

/// A text signed by several keys.
pub fn sign_by_all(keys: &[&TestKey], text: &str) -> String {
    sign_with(text, |normal| {
        let sign = |key: &&TestKey| {
            key.signature(normal, SignatureType::Text, HashAlgorithm::Sha256, NOW, Vec::new())
        };
        keys.iter().map(sign).collect()
    })
}
