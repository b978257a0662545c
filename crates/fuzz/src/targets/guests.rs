use block::without_escapes;
use machine::{Instance, fatal_line, read_page, stage, telling_lines};

use super::text;
use crate::Target;

pub(super) const CONSOLE: Target = Target {
    words: &[
        b"\x1b[",
        b"\x1b]52;c;",
        b"\xc2\x9b",
        b"\x1b\\",
        b"\xe2\x80\xae",
        b"Kernel panic - not syncing",
        b"] Linux version ",
        b" login: ",
        b"grub> ",
        b"error: ",
    ],
    ..Target::new("console", "what a guest says on its serial console", 8 << 10, |input| {
        let said = String::from_utf8_lossy(input);
        let clean = without_escapes(&said);
        let harmless = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
        assert!(harmless(&clean), "{clean:?}");
        assert_eq!(without_escapes(&clean), clean, "what is clean stays so");
        stage(&said);
        assert!(fatal_line(&said).is_none_or(|line| harmless(&line)));
        let telling = telling_lines(&said, 5);
        assert!(telling.len() <= 10 && telling.iter().all(|line| harmless(line) && !line.contains('\n')));
    })
};

pub(super) const HTTP_REPLY: Target = Target {
    words: &[
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
    ],
    ..Target::new("http-reply", "what a guest's web server answers to a check", 8 << 10, |mut input| {
        let length = input.len();
        let Ok(page) = read_page(&mut input) else { return };
        assert!(page.body.len() <= length, "the page came from the answer");
    })
};

pub(super) const METADATA: Target = Target {
    words: &[
        b"GET /latest/meta-data/ HTTP/1.1\r\n",
        b"PUT /latest/api/token HTTP/1.1\r\n",
        b"HEAD / HTTP/1.0\r\n",
        b"X-aws-ec2-metadata-token: ",
        b"X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n",
        b"Content-Length: 5\r\n",
        b"Connection: close\r\n",
        b"\r\n\r\n",
        b"5460-",
    ],
    // One answer holds the whole tree of a version.
    memory_a_byte: 4096,
    ..Target::new("metadata", "what a guest asks the metadata service", 4 << 10, |mut input| {
        let instance = Instance {
            ami_id: "ami-0123456789abcdef0".into(),
            instance_id: "i-0123456789abcdef0".into(),
            instance_type: "t3.small".into(),
            architecture: "x86_64".into(),
            region: "local".into(),
            account: "000000000000".into(),
            public_keys: vec![("bakehouse".into(), "ssh-ed25519 SECRET bakehouse".into())],
            block_devices: vec![("ami".into(), "/dev/xvda".into()), ("root".into(), "/dev/xvda".into())],
            user_data: None,
        };
        let mut output = Vec::new();
        // Reading ends in an error when a body is cut off.
        let _ = instance.converse(&mut input, &mut output);
        let output = String::from_utf8_lossy(&output);
        assert!(!output.contains("SECRET"), "nothing is told without a token");
        for answer in output.split("HTTP/1.1 ").skip(1) {
            let status = answer.split(' ').next().unwrap_or_default();
            assert!(["200", "400", "401", "403", "404", "405"].contains(&status), "{answer:?}");
        }
        let path = text(input);
        instance.get(path);
    })
};
