//! Passwords of users and groups: none, and root's account locked.

use tree::TreePath;

use crate::image::Image;
use crate::{Error, Findings, rules};

/// Looks at the account files, and at the copies that tools leave of them.
pub(crate) fn check(image: &Image<'_>, findings: &mut Findings) -> Result<(), Error> {
    for name in
        ["/etc/shadow", "/etc/shadow-", "/etc/passwd", "/etc/passwd-", "/etc/gshadow", "/etc/gshadow-"]
    {
        let Some((path, text)) = image.text(name)? else { continue };
        let of_groups = name.contains("gshadow");
        for (index, line) in text.lines().enumerate() {
            let mut fields = line.split(':');
            if let (Some(user), Some(password)) = (fields.next(), fields.next()) {
                let account = Account { path: &path, line: index + 1, user, password };
                if of_groups { account.check_group(findings) } else { account.check_user(findings) }
            }
        }
    }
    Ok(())
}

struct Account<'a> {
    path: &'a TreePath,
    line: usize,
    user: &'a str,
    password: &'a str,
}

impl Account<'_> {
    fn check_user(&self, findings: &mut Findings) {
        let Self { path, line, user, password } = *self;
        let lock = || format!("run `passwd -l {user}`, or leave the password away");
        // In /etc/passwd an x sends to /etc/shadow.
        let elsewhere = password == "x" && path.as_bytes().starts_with(b"etc/passwd");
        if password.is_empty() {
            let reason = format!("line {line}: the password of {user} is empty");
            findings.add(&rules::EMPTY_PASSWORD, Some(path), reason, lock());
        } else if user == "root" && !elsewhere && !password.starts_with(['*', '!']) {
            let reason = format!("line {line}: root has a password");
            findings.add(&rules::ROOT_PASSWORD, Some(path), reason, "run `passwd -l root`");
        } else if is_hash(password) {
            let reason = format!("line {line}: {user} has a password hash");
            let advice = format!("run `usermod -p '!' {user}`; keys come from the metadata service");
            findings.add(&rules::PASSWORD_HASH, Some(path), reason, advice);
        }
    }

    fn check_group(&self, findings: &mut Findings) {
        if is_hash(self.password) {
            let reason = format!("line {}: the group {} has a password hash", self.line, self.user);
            findings.add(
                &rules::PASSWORD_HASH,
                Some(self.path),
                reason,
                format!("run `gpasswd -r {}`", self.user),
            );
        }
    }
}

/// Whether a password field holds a hash, with the mark of a lock before it or without. Never says which.
fn is_hash(field: &str) -> bool {
    let hash = field.trim_start_matches(['!', '*']);
    let des =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'));
    hash.starts_with('$')
        || hash.len() == 13 && des(hash)
        || hash.len() == 20 && hash.starts_with('_') && des(&hash[1..])
}

#[cfg(test)]
mod tests {
    use crate::test_image::Sample;

    fn shadow(text: &str) -> Vec<String> {
        let mut sample = Sample::new();
        sample.text("etc/shadow", text);
        sample
            .lint(&sample.facts())
            .iter()
            .map(|finding| format!("{}: {}", finding.rule, finding.reason))
            .collect()
    }

    #[test]
    fn locked_accounts_are_fine() {
        assert_eq!(
            shadow("root:*:1:0:99999:7:::\nsshd:!:1::::::\nmessagebus:!*:1:::::1:\nec2-user:!:1\n"),
            [""; 0]
        );
    }

    #[test]
    fn hashes_are_found_and_never_shown() {
        let text =
            "root:!$y$j9T$secretsecret$hash:1\ndaemon:*:1\nold:ab0123456789.:1\nnew:$6$salt$secret:1\n";
        let said = shadow(text);
        assert_eq!(
            said,
            [
                "password-hash: line 1: root has a password hash",
                "password-hash: line 3: old has a password hash",
                "password-hash: line 4: new has a password hash"
            ]
        );
        assert_eq!(shadow("root:$6$salt$secret:1\n"), ["root-password: line 1: root has a password"]);
        assert_eq!(shadow("root:x:1\n"), ["root-password: line 1: root has a password"]);
        assert_eq!(
            shadow("root:*:1\nguest::1\n"),
            ["empty-password: line 2: the password of guest is empty"]
        );
    }

    #[test]
    fn groups_and_copies_and_passwd_count_too() {
        let with = |path: &str, text: &str| {
            let mut sample = Sample::new();
            sample.text(path, text);
            sample.rules()
        };
        assert_eq!(with("etc/gshadow", "root:*::\nstaff:$6$a$b::\nempty:::\n"), ["password-hash"]);
        assert_eq!(with("etc/shadow-", "root:$1$a$b:1\n"), ["root-password"]);
        let passwd = "root:x:0:0::/root:/bin/sh\nec2-user:x:1000:1000::/:/bin/sh\n";
        assert_eq!(with("etc/passwd", passwd), [""; 0]);
        assert_eq!(
            with("etc/passwd", &format!("{passwd}a:ab0123456789.:1:1::/:/bin/sh\n")),
            ["password-hash"]
        );
    }
}
