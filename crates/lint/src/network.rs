//! The network's configuration: an address by DHCP, on whatever interface.

use block::Origin;
use tree::TreePath;

use crate::cloud::Config;
use crate::image::{Image, lines, unquoted};
use crate::{Error, Findings, rules};

/// A configuration file and what it says that matters.
#[derive(Default)]
struct Says {
    dhcp: bool,
    /// The line and the interface or address it is tied to.
    tied: Option<(usize, String)>,
}

impl Says {
    fn tie(&mut self, line: usize, to: &str) {
        self.tied.get_or_insert_with(|| (line, to.to_owned()));
    }
}

/// Looks at what configures the network in the running machine.
pub(crate) fn check(image: &Image<'_>, findings: &mut Findings) -> Result<(), Error> {
    let mut dhcp = image.exists("/usr/sbin/NetworkManager");
    let mut tell = |path: &TreePath, says: Says| {
        if let Some((line, to)) = says.tied {
            let reason = format!("line {line}: the network is tied to {to}");
            let advice = "match all network cards: `Name=en* eth*`, or leave it to cloud-init";
            findings.add(&rules::NETWORK_NAME, Some(path), reason, advice);
        }
        says.dhcp
    };
    let mut networkd = false;
    for folder in ["/etc/systemd/network", "/usr/lib/systemd/network"] {
        for (ending, read) in [(".network", networkd_file as fn(&str) -> Says), (".link", networkd_file)] {
            for (path, text) in image.texts(folder, ending)? {
                if !of_package(image, &path) {
                    networkd |= tell(&path, read(&text));
                }
            }
        }
    }
    let mut interfaces: Vec<_> = image.text("/etc/network/interfaces")?.into_iter().collect();
    interfaces.extend(image.texts("/etc/network/interfaces.d", "")?);
    for (path, text) in interfaces {
        dhcp |= tell(&path, interfaces_file(&text)) && image.exists("/usr/sbin/ifup");
    }
    for (path, text) in image.texts("/etc/netplan", ".yaml")? {
        dhcp |= tell(&path, netplan_file(&text)) && image.exists("/usr/sbin/netplan");
    }
    for (path, text) in image.texts("/etc/udev/rules.d", "persistent-net.rules")? {
        let mut says = Says::default();
        let tied = lines(&text).find(|(_, line)| line.contains("ATTR{address}==\""));
        tied.iter().for_each(|(number, _)| says.tie(*number, "one card's address"));
        tell(&path, says);
    }
    let enabled =
        |unit: &str| image.below("/etc/systemd/system").iter().any(|path| path.name() == unit.as_bytes());
    dhcp |= enabled("dhcpcd.service");
    dhcp |= Config::read(image)?.is_some_and(|config| !config.network_is_off());
    if networkd && !dhcp && !enabled("systemd-networkd.service") {
        let reason = "networkd is to ask for an address by DHCP, and is not enabled";
        findings.add(&rules::NETWORK_DHCP, None, reason, "enable systemd-networkd.service");
    } else if !networkd && !dhcp {
        let advice = "lay a file like /etc/systemd/network/80-dhcp.network down and enable systemd-networkd";
        findings.add(&rules::NETWORK_DHCP, None, "nothing asks for an address by DHCP", advice);
    }
    Ok(())
}

fn of_package(image: &Image<'_>, path: &TreePath) -> bool {
    image.entry(&path.to_string()).is_some_and(|entry| matches!(entry.origin, Origin::Package(_)))
}

/// A `.network` or `.link` file of systemd.
fn networkd_file(text: &str) -> Says {
    let mut says = Says::default();
    let mut section = "";
    for (number, line) in lines(text) {
        if line.starts_with('[') {
            section = line;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        match (section, key.trim()) {
            ("[Network]", "DHCP") => {
                says.dhcp |= matches!(value.trim(), "yes" | "true" | "1" | "on" | "ipv4")
            }
            ("[Match]", "MACAddress" | "PermanentMACAddress") => says.tie(number, "one card's address"),
            ("[Match]", "Name" | "OriginalName") => {
                let mut names = value.split_ascii_whitespace();
                names.find(|name| is_card(name)).into_iter().for_each(|name| says.tie(number, name));
            }
            _ => {}
        }
    }
    says
}

/// `/etc/network/interfaces` and its like.
fn interfaces_file(text: &str) -> Says {
    let mut says = Says::default();
    for (number, line) in lines(text) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["iface", name, "inet", method, ..] => {
                says.dhcp |= method == "dhcp";
                if is_card(name) {
                    says.tie(number, name);
                }
            }
            ["auto" | "allow-hotplug", ..] => {
                words[1..]
                    .iter()
                    .find(|name| is_card(name))
                    .into_iter()
                    .for_each(|name| says.tie(number, name));
            }
            _ => {}
        }
    }
    says
}

/// A file of netplan. Where it matches, the name of an entry means nothing.
fn netplan_file(text: &str) -> Says {
    let mut says = Says::default();
    let matches = lines(text).any(|(_, line)| line.starts_with("match:"));
    for (number, line) in lines(text) {
        let Some((key, value)) = line.split_once(':') else { continue };
        match unquoted(key) {
            "dhcp4" => says.dhcp |= matches!(unquoted(value), "true" | "yes" | "on"),
            "macaddress" => says.tie(number, "one card's address"),
            name if !matches && is_card(name) => says.tie(number, name),
            _ => {}
        }
    }
    says
}

/// Whether a name is that of one network card, and not a pattern or a name that somebody made up.
fn is_card(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let by_place = |rest: &str| {
        rest.starts_with(['o', 'p', 's', 'x', 'X'])
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && rest.bytes().any(|byte| byte.is_ascii_digit())
    };
    name.strip_prefix("eth").is_some_and(digits) || name.strip_prefix("en").is_some_and(by_place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::Sample;

    #[test]
    fn one_card_is_told_from_a_pattern() {
        for name in ["eth0", "ens5", "enp0s3", "enX0", "eno1"] {
            assert!(is_card(name), "{name}");
        }
        for name in ["en*", "eth*", "e*", "lo", "br0", "enabled", "ethernets", "eth[0-9]"] {
            assert!(!is_card(name), "{name}");
        }
    }

    fn with(path: &str, text: &str) -> Vec<&'static str> {
        let mut sample = Sample::new();
        sample.text(path, text);
        sample.rules()
    }

    #[test]
    fn no_file_is_tied_to_one_card() {
        for (path, text) in [
            ("etc/systemd/network/50-a.network", "[Match]\nName=lo ens5\n[Network]\nDHCP=yes\n"),
            ("etc/systemd/network/50-a.link", "[Match]\nMACAddress=00:11:22:33:44:55\n"),
            (
                "etc/network/interfaces",
                "auto lo\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet dhcp\n",
            ),
            ("etc/network/interfaces.d/50", "iface enX0 inet dhcp\n"),
            ("etc/netplan/50.yaml", "network:\n  ethernets:\n    ens5: {dhcp4: true}\n"),
            (
                "etc/netplan/50.yaml",
                "network:\n  ethernets:\n    a:\n      match:\n        macaddress: '00:11'\n",
            ),
            ("etc/udev/rules.d/70-persistent-net.rules", "ATTR{address}==\"00:11\", NAME=\"eth0\"\n"),
        ] {
            assert_eq!(with(path, text), ["network-name"], "{path}");
        }
        for (path, text) in [
            ("etc/systemd/network/50-a.network", "[Match]\nName=br0\n[Network]\nAddress=10.0.0.1/8\n"),
            ("etc/network/interfaces", "auto lo\niface lo inet loopback\n# iface eth0 inet dhcp\n"),
            (
                "etc/netplan/50.yaml",
                "network:\n  ethernets:\n    ens5:\n      match: {name: e*}\n      dhcp4: true\n",
            ),
        ] {
            assert_eq!(with(path, text), [""; 0], "{path}");
        }
    }

    #[test]
    fn something_asks_for_an_address() {
        let network = "etc/systemd/network/80-dhcp.network";
        assert_eq!(
            with(network, "[Match]\nName=en* eth*\n[Network]\nAddress=10.0.0.2/24\n"),
            ["network-dhcp"]
        );
        let mut sample = Sample::new();
        sample.remove("etc/systemd/system/multi-user.target.wants/systemd-networkd.service");
        assert_eq!(sample.rules(), ["network-dhcp"]);
        sample.replace("etc/cloud/cloud.cfg.d/10-ec2.cfg", "network: {config: disabled}\n", "");
        assert_eq!(sample.rules(), [""; 0], "cloud-init writes a configuration");
        let mut sample = Sample::new();
        sample.remove(network);
        assert_eq!(sample.rules(), ["network-dhcp"]);
        sample.text("usr/sbin/ifup", "");
        sample.text("etc/network/interfaces.d/all", "auto /e*\niface /e* inet dhcp\n");
        assert_eq!(sample.rules(), [""; 0]);
    }
}
