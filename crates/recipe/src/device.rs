use std::fmt;

use serde::Serialize;

/// The name under which a volume is attached: `/dev/xvda`, `/dev/sdf`, `/dev/sda1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DeviceName(String);

impl DeviceName {
    /// Reads a name that EC2 takes for HVM images; the error says what is wrong, and what to write instead.
    pub fn new(text: &str) -> Result<Self, String> {
        let Some(name) = text.strip_prefix("/dev/") else {
            return Err(format!(
                "a device name begins with /dev/: write `/dev/{}`",
                text.trim_start_matches('/')
            ));
        };
        let letters = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
        let known = match (name.strip_prefix("xvd"), name.strip_prefix("sd")) {
            (Some(disk), _) => match disk.as_bytes() {
                [_] => letters(disk),
                [first, _] => letters(disk) && (b'a'..=b'd').contains(first),
                _ => false,
            },
            (_, Some(disk)) => disk == "a1" || disk.len() == 1 && letters(disk),
            _ => false,
        };
        if known {
            return Ok(Self(text.to_owned()));
        }
        Err(if name.starts_with("nvme") {
            "write /dev/xvda for the root, /dev/xvdf and on for data: instances that show NVMe disks map these names"
                .to_owned()
        } else if name.ends_with(|c: char| c.is_ascii_digit())
            && (name.starts_with("sd") || name.starts_with("xvd"))
        {
            "a whole disk has no number at its end; only /dev/sda1 may stand for the root disk".to_owned()
        } else {
            "names are /dev/xvda or /dev/sda1 for the root, /dev/xvdf to /dev/xvdp or /dev/sdf to /dev/sdp for data"
                .to_owned()
        })
    }

    /// As the recipe writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after `/dev/`, which names the volume's files: `xvda`, `sda1`.
    pub fn file_stem(&self) -> &str {
        self.0.trim_start_matches("/dev/")
    }

    /// The `xvd…` name of the disk: the same for all names of one device (`/dev/sdf` and `/dev/xvdf`, `/dev/sda1` and
    /// `/dev/xvda`).
    pub fn disk(&self) -> String {
        match self.file_stem() {
            "sda1" => "xvda".to_owned(),
            stem => stem.strip_prefix("sd").map_or_else(|| stem.to_owned(), |letter| format!("xvd{letter}")),
        }
    }

    /// Whether both name the same device.
    pub fn same_device(&self, other: &Self) -> bool {
        self.disk() == other.disk()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_names_are_taken_and_others_are_not() {
        for good in [
            "/dev/xvda",
            "/dev/sda1",
            "/dev/sda",
            "/dev/xvdf",
            "/dev/sdp",
            "/dev/xvdaa",
            "/dev/xvddx",
            "/dev/xvdz",
        ] {
            assert_eq!(DeviceName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "xvda",
            "/dev/",
            "/dev/sdf1",
            "/dev/xvdea",
            "/dev/nvme0n1",
            "/dev/vda",
            "/dev/sdaa",
            "/dev/xvdF",
            "/dev/xvda\n",
        ] {
            assert!(DeviceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_device_has_several_names() {
        let same = |a: &str, b: &str| DeviceName::new(a).unwrap().same_device(&DeviceName::new(b).unwrap());
        assert!(same("/dev/sdf", "/dev/xvdf"));
        assert!(same("/dev/sda1", "/dev/xvda"));
        assert!(same("/dev/sda1", "/dev/sda"));
        assert!(!same("/dev/sdf", "/dev/xvdg"));
    }
}
