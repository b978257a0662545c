//! What the recipe adds to the packages: motd scripts, web pages, files, users, services.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use block::Origin;
use recipe::{Code, Diagnostic, Diagnostics, FileSpec, Payload, Recipe, RunStep, Unit, User, nearest};
use rustix::fs::FileType;
use sandbox::{Input, Sandbox};

use crate::accounts::{Accounts, NewUser, add_user};
use crate::error::{Error, OnFile};
use crate::lay::physical;
use crate::programs::Programs;
use crate::root::{Attributes, Root};

/// Lays the recipe's own files down and remembers which they are.
pub(crate) struct Additions<'a> {
    pub(crate) root: &'a Root,
    /// The time that they get.
    pub(crate) time: i64,
    /// By path on the disk.
    pub(crate) laid: BTreeMap<Vec<u8>, (Origin, i64)>,
}

/// Who owns a file, and its mode where that is given.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: Option<u32>,
}

const ROOT: Owner = Owner { uid: 0, gid: 0, mode: None };

/// The numbers of a file's owner and group, or what is wrong with them.
fn owner(file: &FileSpec, accounts: &Accounts) -> Result<(u32, u32), Vec<Diagnostic>> {
    let unknown = |kind: &str, name: &str, nearest: Option<String>| {
        let message = format!("there is no {kind} `{name}` in the image");
        let told = file.span.error(Code::Account, message, format!("belongs to {name}"));
        let or = format!("add it to `users`, or the package that makes the {kind}");
        told.help(did_you_mean(nearest).unwrap_or(or))
    };
    let uid = accounts
        .user_or_number(&file.owner)
        .ok_or_else(|| unknown("user", &file.owner, near(&file.owner, accounts.user_names())));
    let gid = accounts
        .group_or_number(&file.group)
        .ok_or_else(|| unknown("group", &file.group, near(&file.group, accounts.group_names())));
    match (uid, gid) {
        (Ok(uid), Ok(gid)) => Ok((uid, gid)),
        (uid, gid) => Err([uid.err(), gid.err()].into_iter().flatten().collect()),
    }
}

/// The name that was most likely meant; names of an image may be any bytes.
fn near<'n>(word: &str, names: impl Iterator<Item = &'n [u8]>) -> Option<String> {
    nearest(word, names.filter_map(|name| std::str::from_utf8(name).ok())).map(str::to_owned)
}

fn did_you_mean(nearest: Option<String>) -> Option<String> {
    nearest.map(|name| format!("did you mean `{name}`?"))
}

impl<'a> Additions<'a> {
    pub(crate) fn new(root: &'a Root, time: i64) -> Self {
        Self { root, time, laid: BTreeMap::new() }
    }

    fn attributes(&self, owner: Owner, mode: u32) -> Attributes {
        Attributes { mode: owner.mode.unwrap_or(mode), uid: owner.uid, gid: owner.gid, mtime: self.time }
    }

    fn note(&mut self, path: &[u8], part: &str) -> Result<(), Error> {
        let path = physical(self.root, path)?;
        self.laid.insert(path, (Origin::Recipe(part.into()), self.time));
        Ok(())
    }

    /// A text file owned by root; folders above it that are missing belong to root, too.
    pub(crate) fn text(&mut self, path: &str, text: &str, mode: u32, part: &str) -> Result<(), Error> {
        self.payload(
            path.as_bytes(),
            &Payload::Content(text.into()),
            Owner { mode: Some(mode), ..ROOT },
            part,
        )
    }

    /// A link owned by root.
    pub(crate) fn link(&mut self, target: &str, path: &str, part: &str) -> Result<(), Error> {
        self.folder_above(path.as_bytes(), part)?;
        self.root.symlink(target.as_bytes(), path.as_bytes(), self.attributes(ROOT, 0o777))?;
        self.note(path.as_bytes(), part)
    }

    /// A folder; one that is there stays as it is.
    pub(crate) fn folder(&mut self, path: &[u8], owner: Attributes, part: &str) -> Result<(), Error> {
        self.folder_above(path, part)?;
        if self.root.make_folder(path, owner)? {
            self.note(path, part)?;
        }
        Ok(())
    }

    fn folder_above(&mut self, path: &[u8], part: &str) -> Result<(), Error> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        for (at, _) in path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > 0) {
            if self.root.make_folder(&path[..at], self.attributes(ROOT, 0o755))? {
                self.note(&path[..at], part)?;
            }
        }
        Ok(())
    }

    fn payload(&mut self, path: &[u8], payload: &Payload, owner: Owner, part: &str) -> Result<(), Error> {
        match payload {
            Payload::Content(text) => {
                self.folder_above(path, part)?;
                self.root.write(path, text.as_bytes(), self.attributes(owner, 0o644))?;
                self.note(path, part)
            }
            Payload::Source(source) => {
                self.folder_above(path, part)?;
                self.source(path, source, owner, part)
            }
        }
    }

    /// A file, link or folder of the host. Of its mode only whether it is executable counts: the rest is the umask
    /// of whoever checked it out.
    fn source(&mut self, path: &[u8], source: &Path, owner: Owner, part: &str) -> Result<(), Error> {
        let stat = std::fs::symlink_metadata(source).on("cannot look at", source)?;
        if stat.is_dir() {
            if self.root.make_folder(path, self.attributes(Owner { mode: None, ..owner }, 0o755))? {
                self.note(path, part)?;
            }
            return self.sources_below(path, source, owner, part);
        }
        if stat.is_symlink() {
            let target = std::fs::read_link(source).on("cannot read the link", source)?;
            self.root.symlink(
                target.as_os_str().as_bytes(),
                path,
                self.attributes(Owner { mode: None, ..owner }, 0o777),
            )?;
        } else if stat.is_file() {
            let executable = stat.permissions().mode() & 0o111 != 0;
            let attributes = self.attributes(owner, if executable { 0o755 } else { 0o644 });
            self.root.copy_in(source, path, attributes)?;
        } else {
            let problem = "this source is neither a file nor a folder nor a link";
            return Err(Error::Recipe(
                Diagnostic::about_file(Code::Source, source, problem)
                    .help("leave it out of the folder")
                    .into(),
            ));
        }
        self.note(path, part)
    }

    /// What is in a folder of the host, laid right under the root.
    pub(crate) fn folder_content(&mut self, source: &Path, part: &str) -> Result<(), Error> {
        self.sources_below(b"", source, ROOT, part)
    }

    fn sources_below(&mut self, path: &[u8], source: &Path, owner: Owner, part: &str) -> Result<(), Error> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(source).on("cannot list", source)? {
            names.push(entry.on("cannot list", source)?.file_name());
        }
        names.sort();
        for name in names {
            let below = [path, b"/", name.as_bytes()].concat();
            self.source(&below, &source.join(&name), owner, part)?;
        }
        Ok(())
    }

    /// Everything up to the users.
    pub(crate) fn motd_web_files(&mut self, recipe: &Recipe) -> Result<(), Error> {
        for script in &recipe.motd {
            self.text(&format!("/etc/update-motd.d/{}", script.key), &script.script, 0o755, "motd")?;
        }
        if let Some(web) = &recipe.web {
            for entry in &web.entries {
                let path = format!("{}/{}", web.root.trim_end_matches('/'), entry.path);
                self.payload(path.trim_end_matches('/').as_bytes(), &entry.payload, ROOT, "web")?;
            }
        }
        Ok(())
    }

    /// What the packages brought that keeps a file of the recipe from its place.
    fn in_the_way(&self, file: &FileSpec) -> Result<Option<Diagnostic>, Error> {
        let is_folder = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let path = file.path.as_bytes();
        let slashes = path.iter().enumerate().filter(|(at, byte)| **byte == b'/' && *at > 0);
        for above in slashes.map(|(at, _)| &path[..at]) {
            if self.root.lstat(above)?.is_none() {
                break;
            }
            let what = match self.root.stat(above)? {
                Some(there) if is_folder(there) => continue,
                Some(_) => "a file",
                None => "a link that leads nowhere",
            };
            let above = String::from_utf8_lossy(above);
            let message = format!("`{above}` is no folder in the image but {what}");
            let told = file.span.error(Code::Path, message, "is to lie below it");
            return Ok(Some(told.help("choose another path")));
        }
        let lays_folder = matches!(&file.payload, Payload::Source(source) if source.is_dir());
        if lays_folder || !self.root.lstat(path)?.is_some_and(is_folder) {
            return Ok(None);
        }
        let message = format!("`{}` is a folder in the image, and no file can take its place", file.path);
        let told = file.span.error(Code::Path, message, "is to be a file");
        Ok(Some(told.help("give the file a name below the folder, or choose another path")))
    }

    /// Whether the accounts that the recipe makes and names can be, and its files have room; all that is wrong with
    /// them at once.
    pub(crate) fn check(&self, recipe: &Recipe) -> Result<(), Error> {
        let accounts = Accounts::read(self.root)?;
        let mut problems = Vec::new();
        for user in &recipe.users {
            let mut wrong = |message: String, label: &str, help: Option<String>| {
                problems.push(user.span.error(Code::Account, message, label).maybe_help(help));
            };
            let name = &user.name;
            if accounts.user(name.as_bytes()).is_some() || accounts.group(name.as_bytes()).is_some() {
                let message = format!("a user or group `{name}` comes with the packages");
                wrong(message, "taken", Some("choose another name".to_owned()));
            }
            for group in user.groups.iter().filter(|group| accounts.group(group.as_bytes()).is_none()) {
                let help = did_you_mean(near(group, accounts.group_names()));
                let or = "add the package that makes it, or take it out of `groups`".to_owned();
                let message = format!("there is no group `{group}` in the image");
                wrong(message, "is to be in it", help.or(Some(or)));
            }
            if !self.root.exists(user.shell.as_bytes())? {
                let message = format!("there is no shell `{}` in the image", user.shell);
                wrong(message, "is to use it", Some("add its package to `packages`".to_owned()));
            }
            if user.sudo && !self.root.exists(b"etc/sudoers.d")? {
                let help = Some("add sudo to `packages`".to_owned());
                wrong("`sudo: true` needs the package sudo".to_owned(), "has `sudo: true`", help);
            }
        }
        let accounts = accounts.with(recipe.users.iter().map(|user| user.name.as_str()));
        for file in &recipe.files {
            problems.extend(owner(file, &accounts).err().into_iter().flatten());
            problems.extend(self.in_the_way(file)?);
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Recipe(Diagnostics(problems))) }
    }

    /// The recipe's files; their owners may be its users, so these come first.
    pub(crate) fn files(&mut self, recipe: &Recipe) -> Result<(), Error> {
        let accounts = Accounts::read(self.root)?;
        for file in &recipe.files {
            let (uid, gid) =
                owner(file, &accounts).map_err(|problems| Error::Recipe(Diagnostics(problems)))?;
            let owner = Owner { uid, gid, mode: file.mode.map(u32::from) };
            self.payload(file.path.as_bytes(), &file.payload, owner, "files")?;
        }
        Ok(())
    }

    /// Files that belong to root, where there are no accounts to look names up in.
    pub(crate) fn root_files(&mut self, recipe: &Recipe) -> Result<(), Error> {
        for file in &recipe.files {
            let owner = Owner { mode: file.mode.map(u32::from), ..ROOT };
            self.payload(file.path.as_bytes(), &file.payload, owner, "files")?;
        }
        Ok(())
    }

    /// An account with its home, its keys and its right to become root.
    pub(crate) fn user(&mut self, user: &User) -> Result<(), Error> {
        let day = self.time.div_euclid(86_400);
        let new = NewUser { name: &user.name, groups: &user.groups, shell: &user.shell, day };
        let (uid, gid) = add_user(self.root, &new, self.time)?;
        let own = |mode| Attributes { mode, uid, gid, mtime: self.time };
        let (folder, private, file) = (own(self.home_mode()?), own(0o700), own(0o600));
        let home = format!("/home/{}", user.name);
        self.folder(home.as_bytes(), folder, "users")?;
        self.skeleton(b"etc/skel", home.as_bytes(), uid, gid)?;
        if !user.authorized_keys.is_empty() {
            let keys: String = user.authorized_keys.iter().map(|key| format!("{key}\n")).collect();
            self.folder(format!("{home}/.ssh").as_bytes(), private, "users")?;
            let path = format!("{home}/.ssh/authorized_keys");
            self.root.write(path.as_bytes(), keys.as_bytes(), file)?;
            self.note(path.as_bytes(), "users")?;
        }
        if user.sudo {
            let text = format!("{} ALL=(ALL) NOPASSWD:ALL\n", user.name);
            let name = user.name.replace('.', "-");
            self.text(&format!("/etc/sudoers.d/90-{name}"), &text, 0o440, "users")?;
        }
        Ok(())
    }

    fn home_mode(&self) -> Result<u32, Error> {
        let text = self.root.read_text(b"etc/login.defs")?;
        let mode = text.lines().find_map(|line| line.strip_prefix("HOME_MODE")?.trim().split(' ').next());
        Ok(mode.and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o700))
    }

    /// Copies `/etc/skel` into a home.
    fn skeleton(&mut self, from: &[u8], to: &[u8], uid: u32, gid: u32) -> Result<(), Error> {
        for name in self.root.list(from)? {
            let (from, to) = ([from, b"/", &name].concat(), [to, b"/", &name].concat());
            let Some(stat) = self.root.lstat(&from)? else { continue };
            let attributes = Attributes { mode: stat.st_mode & 0o7777, uid, gid, mtime: self.time };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.folder(&to, attributes, "users")?;
                    self.skeleton(&from, &to, uid, gid)?;
                }
                FileType::Symlink => {
                    let target = self.root.read_link(&from)?.unwrap_or_default();
                    self.root.symlink(&target, &to, attributes)?;
                    self.note(&to, "users")?;
                }
                _ => {
                    self.root.write(&to, &self.root.read(&from)?.unwrap_or_default(), attributes)?;
                    self.note(&to, "users")?;
                }
            }
        }
        Ok(())
    }

    /// Tells cloud-init who the image's default user is: it would make one of its own otherwise.
    pub(crate) fn cloud_init(&mut self, user: &User) -> Result<(), Error> {
        if !self.root.exists(b"etc/cloud/cloud.cfg.d")? {
            return Ok(());
        }
        let groups: Vec<_> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        let sudo = if user.sudo { "[\"ALL=(ALL) NOPASSWD:ALL\"]" } else { "null" };
        let text = format!(
            "# The image's default user: keys from the metadata service go to this account.\n\
             system_info:\n  default_user:\n    name: {:?}\n    lock_passwd: true\n    gecos: {:?}\n    \
             groups: [{}]\n    sudo: {sudo}\n    shell: {:?}\n",
            user.name,
            user.name,
            groups.join(", "),
            user.shell
        );
        self.text("/etc/cloud/cloud.cfg.d/90_default-user.cfg", &text, 0o644, "users")
    }

    /// Switches units on and off.
    pub(crate) fn services(&mut self, recipe: &Recipe, programs: &mut Programs<'_>) -> Result<(), Error> {
        let unknown = self.unknown_units(recipe)?;
        if !unknown.is_empty() {
            return Err(Error::Recipe(Diagnostics(unknown)));
        }
        for (verb, units) in [("enable", &recipe.services.enable), ("disable", &recipe.services.disable)] {
            if units.is_empty() {
                continue;
            }
            let mut argv = vec!["systemctl", verb];
            argv.extend(units.iter().map(|unit| unit.name.as_str()));
            programs.run_timed(&format!("services.{verb}"), &programs.sandbox(), &argv, Input::Null)?;
        }
        self.root.forget();
        Ok(())
    }

    /// What is wrong with the units that the recipe names.
    fn unknown_units(&self, recipe: &Recipe) -> Result<Vec<Diagnostic>, Error> {
        let known = self.units()?;
        let mut unknown = Vec::new();
        for Unit { name, span } in recipe.services.enable.iter().chain(&recipe.services.disable) {
            let template = name
                .split_once('@')
                .and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
            if !known.contains(name) && !template.is_some_and(|template| known.contains(&template)) {
                let near = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
                let help = did_you_mean(near)
                    .unwrap_or_else(|| "add the package that brings it to `packages`".to_owned());
                let message = format!("there is no unit `{name}` in the image");
                unknown.push(span.error(Code::Service, message, "no package brings it").help(help));
            }
        }
        Ok(unknown)
    }

    /// The units of the image, sorted; scripts of `/etc/init.d` count as services.
    fn units(&self) -> Result<Vec<String>, Error> {
        let mut units = Vec::new();
        for folder in ["etc/systemd/system", "usr/lib/systemd/system", "usr/local/lib/systemd/system"] {
            let names = self.root.list(folder.as_bytes())?;
            units.extend(names.iter().map(|name| String::from_utf8_lossy(name).into_owned()));
        }
        for name in self.root.list(b"etc/init.d")? {
            units.push(format!("{}.service", String::from_utf8_lossy(&name)));
        }
        units.retain(|unit| unit.contains('.') && !unit.ends_with(".wants") && !unit.ends_with(".d"));
        units.sort();
        units.dedup();
        Ok(units)
    }

    /// Runs one of the recipe's own steps.
    pub(crate) fn step(&self, step: &RunStep, programs: &mut Programs<'_>) -> Result<(), Error> {
        let what = format!("run step `{}`", step.name);
        let sandbox = with_script(programs.sandbox(), step);
        let argv: &[&str] = match step.script.starts_with("#!") {
            true => &[STEP],
            false => &["/bin/sh", "-e", STEP],
        };
        let ran = programs.run_timed(&what, &sandbox, argv, Input::Null);
        self.root.forget();
        ran.map_err(|error| match error {
            Error::Program { what, status, tail, .. } => {
                let (line, column) = step.span.position();
                let place = Some(format!("{}:{line}:{column}", step.span.file().display()));
                Error::Program { what, status, place, tail }
            }
            other => other,
        })
    }
}

/// Where a step's script is while it runs.
pub(crate) const STEP: &str = "/run/bakehouse-step";

/// Shows a step's script as a file, not as the shell's standard input: what a step runs may read that.
pub(crate) fn with_script(sandbox: Sandbox, step: &RunStep) -> Sandbox {
    sandbox.hide_with(STEP, step.script.as_bytes(), 0o755)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a recipe beside `name: web` when the image has a few accounts, shells and units.
    fn told(recipe: &str, check: impl Fn(&Additions<'_>, &Recipe) -> Vec<Diagnostic>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join("root").join(path);
        for (path, text) in [
            ("etc/passwd", "root:x:0:0::/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n"),
            ("etc/group", "root:x:0:\nadm:x:4:\nwww-data:x:33:\n"),
            ("bin/bash", ""),
            ("usr/lib/systemd/system/apache2.service", ""),
            ("usr/lib/systemd/system/getty@.service", ""),
            ("etc/init.d/old", ""),
        ] {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), text).unwrap();
        }
        for (target, path) in [("/gone", "etc/nowhere"), ("init.d", "etc/rc")] {
            std::os::unix::fs::symlink(target, at(path)).unwrap();
        }
        let path = folder.path().join("recipe.yaml");
        std::fs::write(&path, format!("name: web\n{recipe}\n")).unwrap();
        let source = recipe::load(&path, &recipe::LoadOptions::default()).unwrap();
        let recipe = source.for_arch(source.architectures()[0]).unwrap();
        let root = Root::open(&folder.path().join("root")).unwrap();
        let problems = Diagnostics(check(&Additions::new(&root, 0), &recipe));
        problems.to_string().replace(&format!("{}/", folder.path().display()), "")
    }

    fn accounts(recipe: &str) -> String {
        told(recipe, |additions, recipe| match additions.check(recipe) {
            Ok(()) => Vec::new(),
            Err(Error::Recipe(problems)) => problems.0,
            Err(other) => panic!("{other}"),
        })
    }

    #[test]
    fn accounts_that_cannot_be_are_told_all_at_once_at_their_places() {
        assert_eq!(
            accounts(
                "users: [{name: www-data}, {name: me, groups: [admm, docker], sudo: true, shell: /bin/zsh}]\n\
                 files: [{path: /x, content: a, owner: www, group: me}, {path: /y, content: b, owner: mee}]"
            ),
            "\
error: a user or group `www-data` comes with the packages
 --> recipe.yaml:2:16
  |
2 | users: [{name: www-data}, {name: me, groups: [admm, docker], sudo: true, shell: /bin/zsh}]
  |                ^^^^^^^^ taken
  = help: choose another name

error: there is no group `admm` in the image
 --> recipe.yaml:2:34
  |
2 | users: [{name: www-data}, {name: me, groups: [admm, docker], sudo: true, shell: /bin/zsh}]
  |                                  ^^ is to be in it
  = help: did you mean `adm`?

error: there is no group `docker` in the image
 --> recipe.yaml:2:34
  |
2 | users: [{name: www-data}, {name: me, groups: [admm, docker], sudo: true, shell: /bin/zsh}]
  |                                  ^^ is to be in it
  = help: add the package that makes it, or take it out of `groups`

error: there is no shell `/bin/zsh` in the image
 --> recipe.yaml:2:34
  |
2 | users: [{name: www-data}, {name: me, groups: [admm, docker], sudo: true, shell: /bin/zsh}]
  |                                  ^^ is to use it
  = help: add its package to `packages`

error: `sudo: true` needs the package sudo
 --> recipe.yaml:2:34
  |
2 | users: [{name: www-data}, {name: me, groups: [admm, docker], sudo: true, shell: /bin/zsh}]
  |                                  ^^ has `sudo: true`
  = help: add sudo to `packages`

error: there is no user `www` in the image
 --> recipe.yaml:3:16
  |
3 | files: [{path: /x, content: a, owner: www, group: me}, {path: /y, content: b, owner: mee}]
  |                ^^ belongs to www
  = help: add it to `users`, or the package that makes the user

error: there is no user `mee` in the image
 --> recipe.yaml:3:63
  |
3 | files: [{path: /x, content: a, owner: www, group: me}, {path: /y, content: b, owner: mee}]
  |                                                               ^^ belongs to mee
  = help: did you mean `me`?
"
        );
        assert_eq!(
            accounts("files: [{path: /x, content: a, owner: www-data}]\nusers: [{name: a, groups: [adm]}]"),
            ""
        );
    }

    #[test]
    fn files_for_which_there_is_no_place_are_told_all_at_once_at_their_places() {
        assert_eq!(
            accounts(
                "files:\n\
                 \x20 - {path: /etc/passwd/x, content: a}\n\
                 \x20 - {path: /etc/init.d, content: a}\n\
                 \x20 - {path: /etc/nowhere/x, content: a}"
            ),
            "\
error: `/etc/passwd` is no folder in the image but a file
 --> recipe.yaml:3:12
  |
3 |   - {path: /etc/passwd/x, content: a}
  |            ^^^^^^^^^^^^^ is to lie below it
  = help: choose another path

error: `/etc/init.d` is a folder in the image, and no file can take its place
 --> recipe.yaml:4:12
  |
4 |   - {path: /etc/init.d, content: a}
  |            ^^^^^^^^^^^ is to be a file
  = help: give the file a name below the folder, or choose another path

error: `/etc/nowhere` is no folder in the image but a link that leads nowhere
 --> recipe.yaml:5:12
  |
5 |   - {path: /etc/nowhere/x, content: a}
  |            ^^^^^^^^^^^^^^ is to lie below it
  = help: choose another path
"
        );
        // Links to folders are as good as folders, what is missing is made, and a file or a link may be replaced.
        assert_eq!(
            accounts(
                "files:\n\
                 \x20 - {path: /etc/rc/x, content: a}\n\
                 \x20 - {path: /srv/app/x, content: a}\n\
                 \x20 - {path: /etc/nowhere, content: a}\n\
                 \x20 - {path: /etc/passwd, content: a}"
            ),
            ""
        );
    }

    #[test]
    fn units_that_no_package_brings_are_told_all_at_once_at_their_places() {
        let units = |recipe: &str| {
            told(recipe, |additions, recipe| {
                additions.unknown_units(recipe).unwrap_or_else(|error| panic!("{error}"))
            })
        };
        assert_eq!(
            units(
                "services:\n  enable: [apche2, old, getty@tty1]\n  disable: [postgresql, getty@tty1.timer]"
            ),
            "\
error: there is no unit `apche2.service` in the image
 --> recipe.yaml:3:12
  |
3 |   enable: [apche2, old, getty@tty1]
  |            ^^^^^^ no package brings it
  = help: did you mean `apache2.service`?

error: there is no unit `postgresql.service` in the image
 --> recipe.yaml:4:13
  |
4 |   disable: [postgresql, getty@tty1.timer]
  |             ^^^^^^^^^^ no package brings it
  = help: add the package that brings it to `packages`

error: there is no unit `getty@tty1.timer` in the image
 --> recipe.yaml:4:25
  |
4 |   disable: [postgresql, getty@tty1.timer]
  |                         ^^^^^^^^^^^^^^^^ no package brings it
  = help: add the package that brings it to `packages`
"
        );
    }
}
