//! Who a program believes to be: the ids of a process as the kernel keeps them, and what may be done with them.

use std::collections::HashMap;

/// The highest id that a root file system has; the same as in the mode with subordinate ids.
const LAST_ID: u32 = 65_535;
/// As many groups as the kernel allows.
const MOST_GROUPS: usize = 65_536;

/// The errno of a call that is refused.
pub(crate) type Refused = i32;

/// The user ids of a process, or its group ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ids {
    pub(crate) real: u32,
    pub(crate) effective: u32,
    pub(crate) saved: u32,
    /// What files are made and looked at with.
    pub(crate) files: u32,
}

/// The capabilities that matter here, as bits: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID.
pub(crate) const CHOWN: u32 = 1;
pub(crate) const DAC_OVERRIDE: u32 = 1 << 1;
pub(crate) const SETGID: u32 = 1 << 6;
pub(crate) const SETUID: u32 = 1 << 7;
const ALL: u32 = CHOWN | DAC_OVERRIDE | SETGID | SETUID;

/// Who a process is. The default is root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    pub(crate) user: Ids,
    pub(crate) group: Ids,
    /// The other groups, sorted.
    pub(crate) groups: Vec<u32>,
    permitted: u32,
    effective: u32,
    /// Whether what is permitted stays so when root is given up.
    keeps: bool,
}

impl Default for Credentials {
    fn default() -> Self {
        let (user, group) = (Ids::default(), Ids::default());
        Self { user, group, groups: Vec::new(), permitted: ALL, effective: ALL, keeps: false }
    }
}

/// Which ids a call changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Group,
}

impl Kind {
    fn capability(self) -> u32 {
        match self {
            Kind::User => SETUID,
            Kind::Group => SETGID,
        }
    }
}

/// A call that changes ids, `None` where it leaves one as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// setuid, setgid.
    All(u32),
    /// setreuid, setregid.
    RealEffective(Option<u32>, Option<u32>),
    /// setresuid, setresgid.
    Each(Option<u32>, Option<u32>, Option<u32>),
}

impl Credentials {
    /// Whether it has a capability.
    pub(crate) fn may(&self, capability: u32) -> bool {
        self.effective & capability != 0
    }

    /// Whether it has lost capabilities that root has.
    pub(crate) fn is_limited(&self) -> bool {
        self.effective != ALL
    }

    /// Its permitted and effective capabilities, of those that these are.
    pub(crate) fn of_these(&self, permitted: u64, effective: u64) -> (u64, u64) {
        // Root's others come and go with these.
        let left = |all: u64, own: u32| if own == 0 { 0 } else { all & !u64::from(ALL & !own) };
        (left(permitted, self.permitted), left(effective, self.effective))
    }

    /// prctl(PR_SET_KEEPCAPS).
    pub(crate) fn keeping(mut self, keeps: bool) -> Self {
        self.keeps = keeps;
        self
    }

    /// capset: what is not permitted cannot be had.
    pub(crate) fn with_capabilities(mut self, permitted: u32, effective: u32) -> Self {
        self.permitted &= permitted;
        self.effective = self.permitted & effective;
        self
    }

    /// execve of a program, which may run as its owner or group.
    pub(crate) fn executing(mut self, user: Option<u32>, group: Option<u32>) -> Self {
        self.user.effective = user.unwrap_or(self.user.effective);
        self.group.effective = group.unwrap_or(self.group.effective);
        for ids in [&mut self.user, &mut self.group] {
            (ids.saved, ids.files) = (ids.effective, ids.effective);
        }
        self.permitted = if self.user.real == 0 || self.user.effective == 0 { ALL } else { 0 };
        self.effective = if self.user.effective == 0 { self.permitted } else { 0 };
        self.keeps = false;
        self
    }

    /// What a change of user ids does to capabilities.
    fn after_change_of_user(&mut self, old: Ids) {
        let is_root = |ids: Ids| [ids.real, ids.effective, ids.saved].contains(&0);
        if is_root(old) && !is_root(self.user) && !self.keeps {
            (self.permitted, self.effective) = (0, 0);
        }
        match (old.effective == 0, self.user.effective == 0) {
            (true, false) => self.effective = 0,
            (false, true) => self.effective = self.permitted,
            _ => {}
        }
    }

    /// Whether files that are made belong to root.
    pub(crate) fn makes_files_of_root(&self) -> bool {
        self.user.files == 0 && self.group.files == 0
    }

    /// Whether it is in a group.
    pub(crate) fn is_in(&self, group: u32) -> bool {
        self.group.files == group || self.groups.binary_search(&group).is_ok()
    }

    fn ids(&mut self, kind: Kind) -> &mut Ids {
        match kind {
            Kind::User => &mut self.user,
            Kind::Group => &mut self.group,
        }
    }

    /// What it is after a change; EPERM when it may not, EINVAL when there is no such id.
    pub(crate) fn changed(mut self, kind: Kind, change: Change) -> Result<Self, Refused> {
        let privileged = self.may(kind.capability());
        let ids = self.ids(kind);
        let old = *ids;
        let may = |id: u32, one_of: &[u32]| -> Result<u32, Refused> {
            if id > LAST_ID {
                return Err(libc::EINVAL);
            }
            if privileged || one_of.contains(&id) { Ok(id) } else { Err(libc::EPERM) }
        };
        let every = [old.real, old.effective, old.saved];
        match change {
            Change::All(id) => {
                let id = may(id, &[old.real, old.saved])?;
                if privileged {
                    (ids.real, ids.saved) = (id, id);
                }
                ids.effective = id;
            }
            Change::RealEffective(real, effective) => {
                if let Some(real) = real {
                    ids.real = may(real, &every[..2])?;
                }
                if let Some(effective) = effective {
                    ids.effective = may(effective, &every)?;
                }
                if real.is_some() || effective.is_some_and(|effective| effective != old.real) {
                    ids.saved = ids.effective;
                }
            }
            Change::Each(real, effective, saved) => {
                ids.real = real.map_or(Ok(old.real), |id| may(id, &every))?;
                ids.effective = effective.map_or(Ok(old.effective), |id| may(id, &every))?;
                ids.saved = saved.map_or(Ok(old.saved), |id| may(id, &every))?;
            }
        }
        ids.files = ids.effective;
        if kind == Kind::User {
            self.after_change_of_user(old);
        }
        Ok(self)
    }

    /// setfsuid and setfsgid: what is refused changes nothing.
    pub(crate) fn with_files(mut self, kind: Kind, id: u32) -> Self {
        let privileged = self.may(kind.capability());
        let ids = self.ids(kind);
        let known = [ids.real, ids.effective, ids.saved, ids.files].contains(&id);
        if id <= LAST_ID && (privileged || known) {
            ids.files = id;
        }
        self
    }

    /// setgroups.
    pub(crate) fn with_groups(mut self, mut groups: Vec<u32>) -> Result<Self, Refused> {
        if !self.may(SETGID) {
            return Err(libc::EPERM);
        }
        if groups.len() > MOST_GROUPS || groups.iter().any(|group| *group > LAST_ID) {
            return Err(libc::EINVAL);
        }
        groups.sort_unstable();
        self.groups = groups;
        Ok(self)
    }
}

/// Every identity that was ever taken, by number; number 0 is root.
#[derive(Debug)]
pub(crate) struct Known {
    all: Vec<Credentials>,
    numbers: HashMap<Credentials, u32>,
}

impl Known {
    pub(crate) fn new() -> Self {
        let root = Credentials::default();
        Self { all: vec![root.clone()], numbers: HashMap::from([(root, 0)]) }
    }

    /// Whether nobody has ever been anybody but root.
    pub(crate) fn root_only(&self) -> bool {
        self.all.len() == 1
    }

    /// The credentials of a number; root's when there is no such number.
    pub(crate) fn get(&self, number: u32) -> Credentials {
        self.all.get(number as usize).cloned().unwrap_or_default()
    }

    /// Their number, the same each time.
    pub(crate) fn number(&mut self, credentials: Credentials) -> u32 {
        if let Some(number) = self.numbers.get(&credentials) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.all.push(credentials.clone());
        self.numbers.insert(credentials, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(real: u32, effective: u32, saved: u32) -> Credentials {
        let user = Ids { real, effective, saved, files: effective };
        let permitted = if [real, effective, saved].contains(&0) { ALL } else { 0 };
        let effective = if effective == 0 { permitted } else { 0 };
        Credentials { user, permitted, effective, ..Credentials::default() }
    }

    fn user_after(before: Credentials, change: Change) -> Result<(u32, u32, u32, u32), Refused> {
        let ids = before.changed(Kind::User, change)?.user;
        Ok((ids.real, ids.effective, ids.saved, ids.files))
    }

    #[test]
    fn root_becomes_anybody_and_cannot_come_back() {
        let man = Credentials::default().changed(Kind::User, Change::All(6)).unwrap();
        assert_eq!(man, user(6, 6, 6));
        assert_eq!(user_after(man.clone(), Change::All(0)), Err(libc::EPERM));
        assert_eq!(user_after(man.clone(), Change::Each(None, Some(0), None)), Err(libc::EPERM));
        assert_eq!(man.clone().changed(Kind::Group, Change::All(0)).unwrap(), man, "it is that already");
        assert_eq!(man.clone().changed(Kind::Group, Change::All(6)), Err(libc::EPERM));
        assert_eq!(man.with_groups(vec![1]), Err(libc::EPERM));
    }

    #[test]
    fn a_saved_root_can_come_back() {
        let lent = Credentials::default().changed(Kind::User, Change::Each(None, Some(6), None)).unwrap();
        assert_eq!(lent, user(0, 6, 0));
        assert!(!lent.may(SETUID) && lent.is_limited());
        assert_eq!(user_after(lent.clone(), Change::All(0)), Ok((0, 0, 0, 0)));
        assert_eq!(user_after(lent.clone(), Change::RealEffective(None, Some(0))), Ok((0, 0, 0, 0)));
        assert_eq!(user_after(lent, Change::RealEffective(Some(6), Some(0))), Ok((6, 0, 0, 0)));
    }

    #[test]
    fn the_saved_id_follows_as_the_kernel_says() {
        assert_eq!(user_after(user(0, 0, 0), Change::RealEffective(None, Some(6))), Ok((0, 6, 6, 6)));
        assert_eq!(user_after(user(5, 0, 0), Change::RealEffective(None, Some(5))), Ok((5, 5, 0, 5)));
        assert_eq!(user_after(user(0, 5, 5), Change::RealEffective(Some(5), Some(0))), Ok((5, 0, 0, 0)));
        assert_eq!(user_after(user(5, 6, 7), Change::RealEffective(Some(7), None)), Err(libc::EPERM));
        assert_eq!(user_after(user(5, 6, 7), Change::All(7)), Ok((5, 7, 7, 7)));
    }

    #[test]
    fn ids_that_no_image_has_are_refused() {
        let root = Credentials::default();
        assert_eq!(user_after(root.clone(), Change::All(65_536)), Err(libc::EINVAL));
        assert_eq!(root.clone().with_groups(vec![70_000]), Err(libc::EINVAL));
        assert_eq!(root.with_groups(vec![7, 4]).unwrap().groups, [4, 7]);
    }

    #[test]
    fn the_id_for_files_goes_its_own_way_until_the_next_change() {
        let nfs = Credentials::default().with_files(Kind::User, 6);
        assert_eq!((nfs.user.files, nfs.user.effective, nfs.makes_files_of_root()), (6, 0, false));
        assert_eq!(nfs.clone().with_files(Kind::User, 0).user.files, 0);
        assert_eq!(nfs.changed(Kind::User, Change::All(0)).unwrap(), Credentials::default());
        assert_eq!(user(6, 6, 6).with_files(Kind::User, 7).user.files, 6);
    }

    #[test]
    fn capabilities_are_kept_on_demand_until_a_program_is_executed() {
        let all = Change::All(6);
        let kept = Credentials::default().keeping(true).changed(Kind::User, all).unwrap();
        assert_eq!((kept.permitted, kept.effective), (ALL, 0));
        let raised = kept.clone().with_capabilities(u32::MAX, SETGID);
        assert!(raised.may(SETGID) && !raised.may(SETUID));
        assert_eq!(raised.clone().with_groups(vec![4]).unwrap().groups, [4]);
        assert_eq!(raised.clone().executing(None, None), user(6, 6, 6));
        let gone = raised.with_capabilities(0, 0).with_capabilities(ALL, ALL);
        assert_eq!((gone.permitted, gone.effective), (0, 0));
        assert_eq!(gone.of_these(0x1ff, 0x1ff), (0, 0));
        assert_eq!(Credentials::default().of_these(0x1ff, 0xff), (0x1ff, 0xff));
        assert_eq!(kept.executing(Some(0), None).user, Ids { real: 6, effective: 0, saved: 0, files: 0 });
    }

    #[test]
    fn the_same_identity_has_one_number() {
        let mut known = Known::new();
        assert!(known.root_only());
        assert_eq!(known.number(Credentials::default()), 0);
        let (man, daemon) = (known.number(user(6, 6, 6)), known.number(user(1, 1, 1)));
        assert_eq!((man, daemon, known.number(user(6, 6, 6))), (1, 2, 1));
        assert_eq!(known.get(2), user(1, 1, 1));
        assert_eq!(known.get(77), Credentials::default());
        assert!(!known.root_only());
    }
}
