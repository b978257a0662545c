//! cloud-init: there, switched on, asking EC2, and giving the launch key to the right user.

use tree::TreePath;

use crate::grub::Menu;
use crate::image::{Image, unquoted};
use crate::{Error, Facts, Findings, rules};

/// cloud-init's configuration files in the order in which later ones win.
pub(crate) struct Config(Vec<(TreePath, String)>);

/// A key of a YAML mapping with what belongs to it.
struct Section<'a> {
    /// The key's line, from 1.
    line: usize,
    /// Everything behind the colon and in the deeper lines below, without comments.
    text: Vec<&'a str>,
}

impl Config {
    /// Reads the files; `None` where there is no cloud-init.
    pub(crate) fn read(image: &Image<'_>) -> Result<Option<Self>, Error> {
        if !image.exists("/usr/bin/cloud-init") {
            return Ok(None);
        }
        let mut files: Vec<_> = image.text("/etc/cloud/cloud.cfg")?.into_iter().collect();
        files.extend(image.texts("/etc/cloud/cloud.cfg.d", ".cfg")?);
        Ok(Some(Self(files)))
    }

    /// What the last file that has a key says under it. `outermost`: only where it begins its line.
    fn last(&self, key: &str, outermost: bool) -> Option<(&TreePath, Section<'_>)> {
        self.0.iter().rev().find_map(|(path, text)| Some((path, section(text, key, outermost)?)))
    }

    /// A value of one word.
    pub(crate) fn word(&self, key: &str) -> Option<(&TreePath, usize, &str)> {
        let (path, section) = self.last(key, true)?;
        Some((path, section.line, unquoted(section.text.first()?)))
    }

    /// Whether it leaves the network alone.
    pub(crate) fn network_is_off(&self) -> bool {
        self.last("network", true).is_some_and(|(_, section)| {
            let text = section.text.join(" ");
            text.split_once("config:").is_some_and(|(_, value)| value.trim_start().starts_with("disabled"))
        })
    }

    /// Who is given the launch key.
    fn default_user(&self) -> Option<(&TreePath, usize, &str)> {
        let (path, section) = self.last("default_user", false)?;
        let value = section.text.iter().find_map(|line| {
            let fields = line.trim_start_matches('{').split(',');
            fields.filter_map(|field| field.split_once(':')).find(|(key, _)| unquoted(key) == "name")
        })?;
        Some((path, section.line, unquoted(value.1.trim_end_matches('}'))))
    }
}

/// The last section of a key. Understands what people and packages write by hand, not all of YAML.
fn section<'a>(text: &'a str, key: &str, outermost: bool) -> Option<Section<'a>> {
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let lines: Vec<&str> = text.lines().map(without_comment).collect();
    let value = |line: &'a str| line.trim_start().strip_prefix(key)?.trim_start().strip_prefix(':');
    let at = lines.iter().rposition(|line| value(line).is_some() && (indent(line) == 0 || !outermost))?;
    let depth = indent(lines[at]);
    let below = lines[at + 1..].iter().filter(|line| !line.trim().is_empty());
    let inside = |line: &&&str| {
        indent(line) > depth || indent(line) == depth && line.trim_start().starts_with(['-', ']'])
    };
    let text = value(lines[at]).into_iter().chain(below.take_while(inside).copied());
    Some(Section { line: at + 1, text: text.map(str::trim).filter(|line| !line.is_empty()).collect() })
}

/// A line up to its comment: a `#` at its start or behind a space.
fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(before, _)| before)
}

/// Looks at cloud-init and the default user.
pub(crate) fn check(
    image: &Image<'_>,
    menu: &Menu,
    facts: &Facts<'_>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let in_passwd = |name: &str| -> Result<bool, Error> {
        let passwd = image.text("/etc/passwd")?.map(|(_, text)| text).unwrap_or_default();
        Ok(passwd.lines().any(|line| line.split(':').next() == Some(name)))
    };
    let Some(config) = Config::read(image)? else {
        let advice = "add cloud-init, or have another program that takes the launch key";
        findings.add(&rules::CLOUD_INIT, None, "there is no cloud-init", advice);
        if let Some(user) = facts.default_user.filter(|user| in_passwd(user).is_ok_and(|there| !there)) {
            let reason = format!("the default user {user} is not in /etc/passwd, and nothing makes it");
            findings.add(&rules::DEFAULT_USER, None, reason, "make the account, or name one that is there");
        }
        return Ok(());
    };
    switched_off(image, menu, findings)?;
    if let Some((path, section)) = config.last("datasource_list", true) {
        let text = section.text.join(" ");
        let mut sources = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        if !sources.any(|source| source == "Ec2") {
            let reason = format!("line {}: the datasource_list has no Ec2", section.line);
            findings.add(
                &rules::CLOUD_INIT_SOURCE,
                Some(path),
                reason,
                "write `datasource_list: [ Ec2, None ]`",
            );
        }
    }
    if let Some(user) = facts.default_user {
        match config.default_user() {
            Some((path, line, other)) if other != user => {
                let reason =
                    format!("line {line}: the launch key goes to {other}, and the default user is {user}");
                let advice = format!("write `name: {user}` under system_info, default_user");
                findings.add(&rules::DEFAULT_USER, Some(path), reason, advice);
            }
            None if !in_passwd(user)? => {
                let reason = format!("nothing makes the default user {user}");
                let advice =
                    format!("make the account, or name {user} in cloud-init's system_info, default_user");
                findings.add(&rules::DEFAULT_USER, None, reason, advice);
            }
            _ => {}
        }
    }
    if !image.exists("/usr/bin/growpart") {
        let advice = "add the package cloud-guest-utils";
        findings.add(&rules::GROWPART, None, "cloud-init is there and growpart is not", advice);
    }
    Ok(())
}

/// The ways in which cloud-init, or its source for EC2, is switched off.
fn switched_off(image: &Image<'_>, menu: &Menu, findings: &mut Findings) -> Result<(), Error> {
    if let Some((path, _)) = image.resolve("/etc/cloud/cloud-init.disabled") {
        findings.add(
            &rules::CLOUD_INIT_OFF,
            Some(&path),
            "this file switches cloud-init off",
            "take it away",
        );
    }
    if let Some((path, text)) = image.text("/etc/cloud/ds-identify.cfg")?
        && let Some(policy) = section(&text, "policy", true)
        && policy.text.first().is_some_and(|policy| policy.starts_with("disabled"))
    {
        let reason = format!("line {}: the policy switches cloud-init off", policy.line);
        findings.add(&rules::CLOUD_INIT_OFF, Some(&path), reason, "take the line away");
    }
    let Some(boot) = menu.usual() else { return Ok(()) };
    for argument in &boot.arguments {
        if argument == "cloud-init=disabled" {
            let reason = format!("line {}: the command line switches cloud-init off", boot.line);
            let advice = "take cloud-init=disabled away and run update-grub";
            findings.add(&rules::CLOUD_INIT_OFF, menu.path.as_ref(), reason, advice);
        }
        let source = argument.strip_prefix("ds=").or_else(|| argument.strip_prefix("ci.ds="));
        if let Some(source) = source.filter(|source| !source.to_ascii_lowercase().starts_with("ec2")) {
            let source = source.split(';').next().unwrap_or_default();
            let reason =
                format!("line {}: the command line tells cloud-init to ask {source} only", boot.line);
            let advice = "take ds= away and run update-grub";
            findings.add(&rules::CLOUD_INIT_SOURCE, menu.path.as_ref(), reason, advice);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::Sample;

    fn with(path: &str, text: &str) -> Vec<&'static str> {
        let mut sample = Sample::new();
        sample.text(path, text);
        sample.rules()
    }

    #[test]
    fn sections_are_found_as_people_write_them() {
        let text =
            "a: [x,\n  y]  # z\nlist:\n- one\n- two # 2\nmap:\n  deep:\n    name: n\n  more: 1\nlast: w\n";
        let found = |key: &str, outermost| section(text, key, outermost).map(|found| found.text.join("|"));
        assert_eq!(found("a", true).as_deref(), Some("[x,|y]"));
        assert_eq!(found("list", true).as_deref(), Some("- one|- two"));
        assert_eq!(found("deep", false).as_deref(), Some("name: n"));
        assert_eq!(found("deep", true), None);
        assert_eq!(found("last", true).as_deref(), Some("w"));
    }

    #[test]
    fn a_list_of_sources_has_ec2() {
        let later = "etc/cloud/cloud.cfg.d/95-sources.cfg";
        assert_eq!(with(later, "datasource_list: [ NoCloud, None ]\n"), ["cloud-init-source"]);
        assert_eq!(with(later, "datasource_list:\n  - NoCloud\n"), ["cloud-init-source"]);
        assert_eq!(with(later, "datasource_list: [NoCloud, Ec2]\n"), [""; 0]);
        assert_eq!(with(later, "# datasource_list: [ NoCloud ]\n"), [""; 0]);
        let earlier = "etc/cloud/cloud.cfg.d/05-sources.cfg";
        assert_eq!(with(earlier, "datasource_list: [ NoCloud ]\n"), [""; 0], "a later file wins");
        let mut sample = Sample::new();
        sample.replace("boot/grub/grub.cfg", "ro console=tty1", "ro ds=nocloud;s=/seed/ console=tty1");
        assert_eq!(sample.rules(), ["cloud-init-source"]);
    }

    #[test]
    fn cloud_init_is_on() {
        assert_eq!(with("etc/cloud/cloud-init.disabled", ""), ["cloud-init-off"]);
        assert_eq!(with("etc/cloud/ds-identify.cfg", "policy: disabled\n"), ["cloud-init-off"]);
        assert_eq!(with("etc/cloud/ds-identify.cfg", "policy: search,found=all\n"), [""; 0]);
        let mut sample = Sample::new();
        sample.replace("boot/grub/grub.cfg", "ro console=tty1", "ro cloud-init=disabled console=tty1");
        assert_eq!(sample.rules(), ["cloud-init-off"]);
    }

    #[test]
    fn an_image_without_cloud_init_is_lawful() {
        let mut sample = Sample::new();
        sample.remove("usr/bin/cloud-init");
        assert_eq!(sample.rules(), ["cloud-init"]);
        let facts = Facts { default_user: Some("nobody-here"), ..sample.facts() };
        assert_eq!(sample.rules_with(&facts), ["default-user", "cloud-init"]);
        sample.remove("usr/bin/growpart");
        assert_eq!(sample.rules(), ["cloud-init"]);
    }

    #[test]
    fn the_launch_key_goes_to_the_default_user() {
        let mut sample = Sample::new();
        let facts = Facts { default_user: Some("admin"), ..sample.facts() };
        assert_eq!(sample.rules_with(&facts), ["default-user"]);
        sample.text("etc/cloud/cloud.cfg.d/99.cfg", "system_info: {default_user: {name: x}}\n");
        assert_eq!(
            sample.rules_with(&facts),
            ["default-user"],
            "in a form that is not understood, nothing changes"
        );
        sample.text(
            "etc/cloud/cloud.cfg.d/99.cfg",
            "system_info:\n  default_user: {gecos: A, name: 'admin'}\n",
        );
        assert_eq!(sample.rules_with(&facts), [""; 0]);
        sample.remove("etc/cloud/cloud.cfg.d/99.cfg");
        sample.remove("etc/cloud/cloud.cfg.d/90_default-user.cfg");
        assert_eq!(sample.rules(), ["default-user"], "cloud-init's own default user is another");
        sample.text("etc/cloud/cloud.cfg", "users: [default]\n");
        assert_eq!(sample.rules_with(&facts), ["default-user"], "nothing makes it");
        assert_eq!(sample.rules(), [""; 0], "the account is there");
        assert_eq!(sample.rules_with(&Facts { default_user: None, ..facts }), [""; 0]);
    }

    #[test]
    fn the_root_can_grow() {
        let mut sample = Sample::new();
        sample.remove("usr/bin/growpart");
        assert_eq!(sample.rules(), ["growpart"]);
    }
}
