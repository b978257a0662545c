use debian::openpgp::{DEBIAN_KEYS, Flaw, KeyRing, OpenPgpError, Verified};
use pgp::composed::KeyType;
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureType, SubpacketData};
use pgp::types::Duration;

use lying_mirror::{CREATED, NOW, SubkeyWish, TestKey, Wish, sign_by_all};

const TEXT: &str = "Origin: Test\n- a dash\n-----not armour\nSuite: test\n\nthe end\n";

fn ring(keys: &[&TestKey]) -> KeyRing {
    let mut ring = KeyRing::empty();
    keys.iter().for_each(|key| ring.add("test", &key.bytes()).unwrap());
    ring
}

fn flaw(result: Result<Verified, OpenPgpError>) -> Flaw {
    match result {
        Err(OpenPgpError::NoGoodSignature { problems, .. }) => problems[0].what.clone(),
        other => panic!("{other:?}"),
    }
}

/// What is wrong with an ordinary signature by a key like this, at a time.
fn flaw_of(wish: &Wish, now: i64) -> Flaw {
    let key = TestKey::new(wish);
    flaw(ring(&[&key]).verify("InRelease", key.sign(TEXT).as_bytes(), now))
}

#[test]
fn a_good_signature_gives_the_text_that_was_signed() {
    for subkey in [None, Some(SubkeyWish::default())] {
        let key = TestKey::new(&Wish { subkey, ..Wish::default() });
        let signed = key.sign(TEXT);
        assert!(signed.contains("\n- - a dash\n- -----not armour\n"));
        let verified = ring(&[&key]).verify("InRelease", signed.as_bytes(), NOW).unwrap();
        assert_eq!((verified.text.as_str(), verified.signed_at), (TEXT, NOW));
        // Blanks at the end of a line are not signed, so they do not come out either.
        let blanks = signed.replace("the end", "the end \t ").replace("a dash\n", "a dash\r\n");
        assert_eq!(ring(&[&key]).verify("InRelease", blanks.as_bytes(), NOW).unwrap().text, TEXT);
        let mut armored = KeyRing::empty();
        armored.add("test", key.armored().as_bytes()).unwrap();
        assert!(armored.verify("InRelease", signed.as_bytes(), NOW).is_ok());
    }
}

#[test]
fn a_changed_text_is_refused_wherever_the_change_is() {
    let key = TestKey::new(&Wish::default());
    let ring = ring(&[&key]);
    let signed = key.sign(TEXT);
    assert_eq!(flaw(ring.verify("x", signed.replace("Origin", "0rigin").as_bytes(), NOW)), Flaw::Wrong);
    assert_eq!(flaw(ring.verify("x", signed.replace("Suite", "\nSuite").as_bytes(), NOW)), Flaw::Wrong);
    let body = signed.find("Origin").unwrap()..signed.find("\n-----BEGIN PGP SIGNATURE").unwrap();
    let mut kept = 0;
    for at in 0..signed.len() {
        let mut bytes = signed.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(verified) = ring.verify("x", &bytes, NOW) {
            // Only what is not signed may change: the armour's own decoration. Never what comes out.
            assert!(!body.contains(&at), "byte {at}");
            assert_eq!(verified.text, TEXT);
            kept += 1;
        }
    }
    assert!(kept < signed.len() / 4);
    for len in 0..signed.trim_end().len() - 1 {
        match ring.verify("x", &signed.as_bytes()[..len], NOW) {
            Ok(verified) => assert_eq!(verified.text, TEXT),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn nothing_may_stand_around_the_signed_text() {
    let key = TestKey::new(&Wish::default());
    let ring = ring(&[&key]);
    let signed = key.sign(TEXT);
    let other = key.sign("Suite: other\n");
    for text in [
        format!("Suite: evil\n{signed}"),
        format!("\n{signed}"),
        format!("{signed}Suite: evil\n"),
        format!("{signed}{other}"),
        format!("{other}{signed}"),
        signed.replacen("\n\n", "\nSuite: evil\n\n", 1),
        signed.replacen("Hash: ", "Comment: ", 1),
        TEXT.to_owned(),
        String::new(),
    ] {
        match ring.verify("x", text.as_bytes(), NOW) {
            Ok(verified) => panic!("{text}\n{verified:?}"),
            Err(error) => assert!(matches!(error, OpenPgpError::Format { .. }), "{error}"),
        }
    }
}

#[test]
fn an_unknown_key_is_named() {
    let (key, other) = (TestKey::new(&Wish::default()), TestKey::new(&Wish { seed: 2, ..Wish::default() }));
    let result = ring(&[&other]).verify("http://x/InRelease", key.sign(TEXT).as_bytes(), NOW);
    let message = result.as_ref().unwrap_err().to_string();
    assert!(
        message.starts_with("http://x/InRelease: no good signature by a trusted key.\n  key "),
        "{message}"
    );
    assert_eq!(flaw(result), Flaw::UnknownKey);
    // One good signature is enough, whoever else has signed.
    let both = sign_by_all(&[&key, &other], TEXT);
    assert!(ring(&[&other]).verify("x", both.as_bytes(), NOW).is_ok());
    assert!(ring(&[&key]).verify("x", both.as_bytes(), NOW).is_ok());
    assert_eq!(flaw(KeyRing::empty().verify("x", both.as_bytes(), NOW)), Flaw::UnknownKey);
}

#[test]
fn so_many_signatures_are_refused_in_a_short_message() {
    let (key, other) = (TestKey::new(&Wish::default()), TestKey::new(&Wish { seed: 2, ..Wish::default() }));
    let message = |count| {
        let signed = sign_by_all(&vec![&key; count], TEXT);
        ring(&[&other]).verify("x", signed.as_bytes(), NOW).unwrap_err().to_string()
    };
    assert_eq!(message(32).lines().count(), 33);
    assert_eq!(message(33), "x: no usable OpenPGP signed text: it has more than 32 signatures");
    let mut keys = vec![&other; 33];
    keys[32] = &key;
    assert!(ring(&[&key]).verify("x", sign_by_all(&keys, TEXT).as_bytes(), NOW).is_err());
}

#[test]
fn keys_past_their_end_are_refused() {
    let week = 7 * 86_400;
    let ends_in = |seconds: i64| Some(u32::try_from(NOW + seconds - CREATED).unwrap());
    let primary = |lifetime| Wish { lifetime, ..Wish::default() };
    assert_eq!(flaw_of(&primary(ends_in(-week)), NOW), Flaw::KeyExpired(NOW - week));
    // Good when it signed, expired since.
    assert_eq!(flaw_of(&primary(ends_in(week)), NOW + week), Flaw::KeyExpired(NOW + week));
    let key = TestKey::new(&primary(ends_in(week)));
    assert!(ring(&[&key]).verify("x", key.sign(TEXT).as_bytes(), NOW + week - 1).is_ok());
    let subkey = SubkeyWish { lifetime: ends_in(-1), ..SubkeyWish::default() };
    assert_eq!(flaw_of(&Wish { subkey: Some(subkey), ..Wish::default() }, NOW), Flaw::KeyExpired(NOW - 1));
    // A subkey does not outlive its primary key.
    let both = Wish { lifetime: ends_in(-1), subkey: Some(SubkeyWish::default()), ..Wish::default() };
    assert_eq!(flaw_of(&both, NOW), Flaw::KeyExpired(NOW - 1));
}

#[test]
fn revoked_keys_are_refused() {
    assert_eq!(flaw_of(&Wish { revoked: true, ..Wish::default() }, NOW), Flaw::Revoked);
    let subkey = SubkeyWish { revoked: true, ..SubkeyWish::default() };
    assert_eq!(flaw_of(&Wish { subkey: Some(subkey), ..Wish::default() }, NOW), Flaw::Revoked);
    let under = Wish { revoked: true, subkey: Some(SubkeyWish::default()), ..Wish::default() };
    assert_eq!(flaw_of(&under, NOW), Flaw::Revoked);
}

#[test]
fn keys_that_may_not_sign_are_refused() {
    assert_eq!(flaw_of(&Wish { may_sign: false, ..Wish::default() }, NOW), Flaw::NotForSigning);
    let subkey = SubkeyWish { may_sign: false, ..SubkeyWish::default() };
    assert_eq!(flaw_of(&Wish { subkey: Some(subkey), ..Wish::default() }, NOW), Flaw::NotForSigning);
    let adopted = SubkeyWish { back_signature: false, ..SubkeyWish::default() };
    assert_eq!(flaw_of(&Wish { subkey: Some(adopted), ..Wish::default() }, NOW), Flaw::Unbound);
}

#[test]
fn weak_hashes_and_short_keys_are_refused() {
    let rsa = Wish { kind: KeyType::Rsa(2048), ..Wish::default() };
    let key = TestKey::new(&rsa);
    let ring = ring(&[&key]);
    for (hash, name) in
        [(HashAlgorithm::Sha1, "SHA1"), (HashAlgorithm::Md5, "MD5"), (HashAlgorithm::Sha224, "SHA224")]
    {
        let signed = key.sign_as(TEXT, SignatureType::Text, hash, NOW, Vec::new());
        assert_eq!(flaw(ring.verify("x", signed.as_bytes(), NOW)), Flaw::Hash(name.into()));
    }
    assert_eq!(flaw_of(&Wish { binding_hash: HashAlgorithm::Sha1, ..rsa }, NOW), Flaw::Unbound);
    // Made by gpg: the pgp crate makes no such key.
    let mut short = KeyRing::empty();
    short.add("short", include_bytes!("rsa1024.asc")).unwrap();
    let signed = include_bytes!("rsa1024.InRelease");
    assert_eq!(flaw(short.verify("x", signed, NOW)), Flaw::WeakKey("an RSA key of 1024 bits".into()));
    assert!(ring.verify("x", key.sign(TEXT).as_bytes(), NOW).is_ok());
}

#[test]
fn signatures_from_the_future_and_past_their_end_are_refused() {
    let key = TestKey::new(&Wish::default());
    let ring = ring(&[&key]);
    let signed = key.sign(TEXT);
    assert!(ring.verify("x", signed.as_bytes(), NOW - 600).is_ok());
    let early = ring.verify("x", signed.as_bytes(), NOW - 601);
    assert!(early.as_ref().unwrap_err().to_string().contains("clock may be wrong"));
    assert_eq!(flaw(early), Flaw::Future { made: NOW, now: NOW - 601 });
    let lifetime = vec![SubpacketData::SignatureExpirationTime(Duration::from_secs(100))];
    let short = key.sign_as(TEXT, SignatureType::Text, HashAlgorithm::Sha256, NOW, lifetime);
    assert!(ring.verify("x", short.as_bytes(), NOW + 99).is_ok());
    assert_eq!(flaw(ring.verify("x", short.as_bytes(), NOW + 100)), Flaw::SignatureExpired(NOW + 100));
    let binary = key.sign_as(TEXT, SignatureType::Binary, HashAlgorithm::Sha256, NOW, Vec::new());
    assert_eq!(flaw(ring.verify("x", binary.as_bytes(), NOW)), Flaw::Kind);
}

#[test]
fn the_carried_keys_are_debians_and_no_others() {
    for key in DEBIAN_KEYS {
        let mut ring = KeyRing::empty();
        ring.add(key.name, key.armor).unwrap();
        assert_eq!(ring.fingerprints(), key.fingerprints, "{}", key.name);
    }
    let all: usize = DEBIAN_KEYS.iter().map(|key| key.fingerprints.len()).sum();
    assert_eq!(KeyRing::debian().unwrap().fingerprints().len(), all);
}

#[test]
fn the_carried_keys_are_those_of_this_machine() {
    for key in DEBIAN_KEYS {
        let file = format!("/usr/share/keyrings/{}.gpg", key.name);
        let Ok(bytes) = std::fs::read(&file) else {
            workbench::left_out(&format!(
                "{file} is not on this machine, {} was not compared with it",
                key.name
            ));
            continue;
        };
        let mut theirs = KeyRing::empty();
        theirs.add(&file, &bytes).unwrap();
        assert_eq!(theirs.fingerprints(), key.fingerprints);
    }
}

#[test]
fn gpgv_agrees_on_good_and_tampered_texts() {
    // An algorithm that every gpgv knows.
    let key = TestKey::new(&Wish { kind: KeyType::Rsa(2048), ..Wish::default() });
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("key.gpg"), key.bytes()).unwrap();
    let good = key.sign(TEXT);
    for (text, expected) in [(good.clone(), true), (good.replace("Origin", "0rigin"), false)] {
        std::fs::write(path("InRelease"), &text).unwrap();
        let mut gpgv = workbench::tool("gpgv");
        gpgv.arg("--homedir").arg(folder.path()).arg("--keyring").arg(path("key.gpg")).arg(path("InRelease"));
        let output = gpgv.output().unwrap();
        assert_eq!(output.status.success(), expected, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(ring(&[&key]).verify("x", text.as_bytes(), NOW).is_ok(), expected);
    }
}
