//! What programs find of owners and identities. Every test holds whoever runs it: root, an ordinary user with
//! subordinate ids, and one without, for whom a keeper answers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use super::{Outcome, Root, Skipped, Test, inside, shell};

pub(super) const TESTS: [Test; 12] = [
    ("owners_stay_with_their_files", owners_stay_with_their_files),
    ("files_are_found_by_their_owners", files_are_found_by_their_owners),
    ("copies_and_archives_keep_owners", copies_and_archives_keep_owners),
    ("chown_does_all_that_it_does", chown_does_all_that_it_does),
    ("a_new_file_in_an_old_place_is_roots", a_new_file_in_an_old_place_is_roots),
    ("names_lead_where_a_program_sees_them", names_lead_where_a_program_sees_them),
    ("who_drops_root_is_somebody_else", who_drops_root_is_somebody_else),
    ("what_another_makes_is_anothers", what_another_makes_is_anothers),
    ("folders_hand_their_group_down", folders_hand_their_group_down),
    ("su_and_its_like_work", su_and_its_like_work),
    ("access_lists_name_anybody", access_lists_name_anybody),
    ("crowds_are_answered", crowds_are_answered),
];

/// A root in which man has the user id 6 and the group id 12.
fn root() -> Root {
    let root = Root::new();
    let etc = root.path().join("etc");
    fs::write(etc.join("passwd"), "root:x:0:0::/root:/bin/sh\nman:x:6:12::/var:/bin/sh\n").unwrap();
    fs::write(etc.join("group"), "root:x:0:\nman:x:12:\nother:x:13:man\n").unwrap();
    fs::create_dir(etc.join("pam.d")).unwrap();
    let rules =
        "auth sufficient pam_rootok.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
    for program in ["su", "runuser"] {
        fs::write(etc.join("pam.d").join(program), rules).unwrap();
    }
    root
}

/// Whether the host has a program that a test borrows.
fn has(program: &str) -> Outcome {
    let folders = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    match folders.iter().any(|folder| std::path::Path::new(folder).join(program).exists()) {
        true => Ok(()),
        false => Err(Skipped(format!("there is no {program}"))),
    }
}

/// Runs a script in /var and compares what it says, line by line.
#[track_caller]
fn says(root: &Root, script: &str, expected: &str) {
    let sandbox = root.sandbox().workdir("/var");
    let output = shell(&sandbox, &format!("own() {{ stat -c '%n %u:%g %a' \"$@\"; }}\n{script}"));
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&output), lines(expected), "{script}");
}

fn owners_stay_with_their_files() -> Outcome {
    let root = root();
    says(
        &root,
        "umask 022; echo x >a; mkdir d; ln -s a l; chown man:man a; chown 6 d; chown -h :12 l
         own a d l; ln a b; mv a c; own b c; own -L l 2>/dev/null || mv c a; own -L l
         chown 0:0 b; own a b; chgrp 13 b; own a; ls -ln a | cut -d' ' -f3,4
         chown --reference=d a; own a; rm -r d; own d 2>/dev/null || echo gone",
        "a 6:12 644\nd 6:0 755\nl 0:12 777\nb 6:12 644\nc 6:12 644\nl 6:12 644\na 0:0 644\nb 0:0 644\n\
         a 0:13 644\n0 13\na 6:0 644\ngone",
    );
    let stat = fs::symlink_metadata(root.path().join("var/l")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (0, 12), "as the baker sees it");
    std::os::unix::fs::chown(root.path().join("var/b"), Some(7), None).unwrap();
    says(&root, "own a; [ -O a ] || echo not mine", "a 7:0 644\nnot mine");
    Ok(())
}

fn files_are_found_by_their_owners() -> Outcome {
    has("find")?;
    let root = root();
    says(
        &root,
        "echo x >a; mkdir d; ln -s a l; chown man:man a; chown 6 d; chown -h :12 l; find . -user man | sort; find . -group 12 | sort",
        "./a\n./d\n./a\n./l",
    );
    Ok(())
}

fn copies_and_archives_keep_owners() -> Outcome {
    has("perl")?;
    let root = root();
    says(
        &root,
        "mkdir d; echo x >d/f; ln -s f d/l; chown -Rh man:man d; chmod 2750 d
         cp -a d e; cp -r d g; own e e/f e/l g g/f; tar cf t d; mkdir h; tar xf t -C h; own h/d h/d/l
         tar tvf t --numeric-owner | head -n 1 | cut -d' ' -f1,2; install -o man -g 13 -m 640 d/f i; own i
         install -d -o 7 -g 8 k; own k; cp -p d/f m; own m; mv m e/; own e/m",
        "e 6:12 2750\ne/f 6:12 644\ne/l 6:12 777\ng 0:0 750\ng/f 0:0 644\nh/d 6:12 2750\nh/d/l 6:12 777\n\
         drwxr-s--- 6/12\ni 6:13 640\nk 7:8 755\nm 6:12 644\ne/m 6:12 644",
    );
    says(
        &root,
        "perl -e 'my @s = stat \"d/f\"; print \"$s[4] $s[5]\\n\"; chown 9, 10, \"d/f\"; @s = lstat \"d/f\"; print \"$s[4] $s[5]\\n\";
                  open my $f, \"<\", \"d/f\"; chown 11, -1, $f; @s = stat $f; print \"$s[4] $s[5]\\n\"'",
        "6 12\n9 10\n11 10",
    );
    if root.path().join("../../usr/bin/python3").exists() || std::path::Path::new("/usr/bin/python3").exists()
    {
        says(
            &root,
            "python3 -c 'import os; s = os.stat(\"i\"); print(s.st_uid, s.st_gid); os.chown(\"i\", 1, 2); \
             d = os.open(\"/var\", os.O_RDONLY); s = os.stat(\"i\", dir_fd=d); print(s.st_uid, s.st_gid); \
             print([e.stat().st_uid for e in os.scandir(\"d\") if e.name == \"f\"])'",
            "6 13\n1 2\n[11]",
        );
    }
    Ok(())
}

fn chown_does_all_that_it_does() -> Outcome {
    let root = root();
    says(
        &root,
        "echo x >f; chmod 6755 f; chown man f; own f; chmod 6755 f; own f; mkdir d; chmod 6755 d; chown man d; own d
         chown man /nowhere 2>/dev/null || echo nowhere; chown man /usr/bin 2>/dev/null || echo refused
         chown man /var/../var/f; own f",
        "f 6:0 755\nf 6:0 6755\nd 6:0 6755\nnowhere\nrefused\nf 6:0 755",
    );
    Ok(())
}

fn a_new_file_in_an_old_place_is_roots() -> Outcome {
    has("perl")?;
    let root = root();
    says(
        &root,
        "perl -e 'for (1 .. 300) { open my $f, \">\", \"f\"; chown 6, 12, \"f\"; unlink \"f\"; open my $g, \">\", \"g\";
                  my @s = stat $g; print \"@s[4, 5]\\n\" if $s[4] || $s[5]; undef $f; unlink \"g\" }'
         for n in 1 2 3 4 5 6 7 8 9; do echo x >f; chown man f; rm f; mkdir f; stat -c %u f; rmdir f; done | sort -u",
        "0",
    );
    Ok(())
}

fn names_lead_where_a_program_sees_them() -> Outcome {
    has("perl")?;
    let root = root();
    says(
        &root,
        "mkdir -p a/b c; echo x >a/b/f; ln -s /var/a abs; ln -s ../a/b c/rel; ln -s c/rel two; chown man abs/b/f; own a/b/f
         chown 7 two/f; own abs/b/../b/f; cd c; chown 8 ../c/rel/f; own ../a/b/f; chown 9 rel/../b/f; own rel/f; cd /
         exec 5<var/a/b/f; own -L /dev/fd/5 /proc/self/fd/5 /dev/stdin <&5; chown 10 /proc/self/fd/5; own /var/a/b/f",
        "a/b/f 6:0 644\nabs/b/../b/f 7:0 644\n../a/b/f 8:0 644\nrel/f 9:0 644\n\
         /dev/fd/5 9:0 644\n/proc/self/fd/5 9:0 644\n/dev/stdin 9:0 644\n/var/a/b/f 10:0 644",
    );
    // In a root within the root, whole names start there.
    says(
        &root,
        "mkdir -p j/var j/usr; cp -a /bin /lib /lib64 j/ 2>/dev/null; mkdir -p j/bin2; echo x >j/var/f; ln -s /var/f j/l
         perl -e 'chroot \"/var/j\" or die; chdir \"/\"; chown 6, 7, \"/l\"; my @s = stat \"/var/f\"; print \"@s[4, 5]\\n\";
                  chdir \"/var\"; @s = stat \"../l\"; print \"@s[4, 5]\\n\"; @s = stat \"../../../l\"; print \"@s[4, 5]\\n\"'
         own j/var/f",
        "6 7\n6 7\n6 7\nj/var/f 6:7 644",
    );
    Ok(())
}

fn who_drops_root_is_somebody_else() -> Outcome {
    has("setpriv")?;
    let root = root();
    says(
        &root,
        "setpriv --reuid 6 --regid 12 --clear-groups sh -c 'id -u; id -g; id -G; sh -c \"id -u\"'
         setpriv --reuid 6 --regid 12 --groups 13,4 sh -c 'id -G; setpriv --reuid 0 id -u 2>/dev/null || echo no way back'
         setpriv --ruid 6 perl -e 'print \"$< $>\\n\"; $> = 6; print \"$< $>\\n\"; $> = 0; print \"$< $>\\n\"'
         perl -e '$) = \"12 13\"; $( = 12; $> = 6; print \"$< $> @{[split / /, $)]}\\n\"; mkdir \"/etc/no\" or print \"refused\\n\";
                  $> = 0; print \"$>\\n\"; $< = $> = 6; $> = 0; print \"$>\\n\"'; id -u",
        "6\n12\n12\n6\n12 4 13\nno way back\n6 0\n6 6\n6 0\n0 6 12 13\nrefused\n0\n6\n0",
    );
    // A child lives on when those that started it are gone or have become somebody else.
    says(
        &root,
        "setpriv --reuid 6 --clear-groups sh -c '(sleep 0.2; id -u; echo done >&2) & exit' 2>/dev/null | cat
         perl -e 'if (!fork) { sleep 1; print \"child $>\\n\"; exit } $> = 6; wait; print \"parent $>\\n\"'",
        "6\nchild 0\nparent 6",
    );
    Ok(())
}

fn what_another_makes_is_anothers() -> Outcome {
    has("setpriv")?;
    let root = root();
    says(
        &root,
        "mkdir -m 777 p; mkdir -m 755 q; ln -s /var/p/dangling p/way
         setpriv --reuid 6 --regid 12 --clear-groups sh -c 'umask 027; cd p; echo x >f; echo y >f; mkdir d; ln -s x l; mkfifo n; echo z >d/g
            cp f e; set -C; echo w >x; mv f h; touch ../q/no 2>/dev/null || echo refused; touch t && chmod 4711 t; chgrp 13 t 2>/dev/null || echo not in it
            perl -e \"use Fcntl; sysopen F, q(s), O_CREAT | O_EXCL | O_RDWR, 0600; syswrite F, q(text); print -s q(s), qq(\\n)\"
            : >./M; chmod 600 M; rm h; chown 0 e 2>/dev/null || echo not to root'
         cd p; own d d/g e l M n s t x; cat d/g e x",
        "refused\nnot in it\n4\nnot to root\nd 6:12 750\nd/g 6:12 640\ne 6:12 640\nl 6:12 777\nM 6:12 600\nn 6:12 640\ns 6:12 600\n\
         t 6:12 4711\nx 6:12 640\nz\ny\nw",
    );
    Ok(())
}

fn folders_hand_their_group_down() -> Outcome {
    let root = root();
    says(
        &root,
        "umask 022; mkdir d; chgrp 12 d; chmod 2775 d; echo x >d/f; mkdir d/s; ln -s f d/l; mkfifo d/p; echo y >d/s/g; own d/* d/s/g
         echo x >g; mv g d/; own d/g; chmod g-s d; echo x >d/h; own d/h; cp d/f d/i; own d/i",
        "d/f 0:12 644\nd/l 0:12 777\nd/p 0:12 644\nd/s 0:12 2755\nd/s/g 0:12 644\nd/g 0:0 644\nd/h 0:0 644\nd/i 0:0 644",
    );
    Ok(())
}

fn su_and_its_like_work() -> Outcome {
    let root = root();
    for program in ["su", "runuser"] {
        has(program)?;
        says(
            &root,
            &format!(
                "chown man /var; {program} man -c 'id -u; id -G; echo x >/var/{program}'; own /var/{program}"
            ),
            &format!("6\n12 13\n/var/{program} 6:12 644"),
        );
    }
    says(&root, "runuser -u man -- id -un", "man");
    Ok(())
}

fn access_lists_name_anybody() -> Outcome {
    let root = root();
    assert_eq!(
        inside(&root.sandbox(), "lists"),
        "a list for group 12: ok, mode 2775, list 7 5 7 7 5 of 12\nlisted: system.posix_acl_access\n\
         after chmod 750: list 7 5 7 5 0 of 12\nno room: error 34\na link: list 7 5 7 5 0 of 12\n\
         a default list: ok, mode 2750\nremoved: ok, then error 61\na list for root: ok, list 6 4 4 4 0 of 0\n\
         nonsense: error 22\nan id too high: error 22\nanother attribute: ok\n"
    );
    Ok(())
}

/// Gives files access lists and looks at them.
pub(super) fn lists() {
    const ACCESS: &str = "system.posix_acl_access";
    let list = |permissions: [u16; 5], group: u32| {
        let tags = [1_u16, 4, 8, 16, 32];
        let ids = [u32::MAX, u32::MAX, group, u32::MAX, u32::MAX];
        let entries = tags.into_iter().zip(permissions).zip(ids);
        let entries = entries.flat_map(|((tag, permission), id)| {
            [tag.to_le_bytes(), permission.to_le_bytes()].concat().into_iter().chain(id.to_le_bytes())
        });
        2_u32.to_le_bytes().into_iter().chain(entries).collect::<Vec<u8>>()
    };
    let set = |path: &str, name: &str, bytes: &[u8]| match setxattr(path, name, bytes, XattrFlags::empty()) {
        Ok(()) => "ok".to_owned(),
        Err(errno) => name_of(errno),
    };
    let get = |path: &str| {
        let mut bytes = [0; 256];
        match getxattr(path, ACCESS, &mut bytes) {
            Ok(length) => {
                let entries: Vec<_> = bytes[4..length].as_chunks::<8>().0.to_vec();
                let permissions: Vec<_> = entries.iter().map(|entry| entry[2].to_string()).collect();
                format!("list {} of {}", permissions.join(" "), entries[2][4])
            }
            Err(errno) => name_of(errno),
        }
    };
    let mode = |path: &str| format!("mode {:o}", fs::metadata(path).unwrap().mode() & 0o7777);
    let folder = "/var/lists";
    fs::create_dir(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o2700)).unwrap();
    let wide = list([7, 5, 7, 7, 5], 12);
    println!("a list for group 12: {}, {}, {}", set(folder, ACCESS, &wide), mode(folder), get(folder));
    let mut names = [0; 256];
    let length = listxattr(folder, &mut names).unwrap();
    println!("listed: {}", String::from_utf8_lossy(&names[..length]).trim_end_matches('\0'));
    fs::set_permissions(folder, fs::Permissions::from_mode(0o2750)).unwrap();
    println!("after chmod 750: {}", get(folder));
    println!(
        "no room: {}",
        getxattr(folder, ACCESS, &mut [0; 9]).map_or_else(name_of, |size| size.to_string())
    );
    symlink(folder, "/var/link").unwrap();
    println!("a link: {}", get("/var/link"));
    println!("a default list: {}, {}", set(folder, "system.posix_acl_default", &wide), mode(folder));
    let removed = removexattr(folder, ACCESS).map_or_else(name_of, |()| "ok".to_owned());
    println!("removed: {removed}, then {}", get(folder));
    fs::write("/var/file", "").unwrap();
    println!(
        "a list for root: {}, {}",
        set("/var/file", ACCESS, &list([6, 4, 4, 4, 0], 0)),
        get("/var/file")
    );
    println!("nonsense: {}", set("/var/file", ACCESS, &wide[..30]));
    println!("an id too high: {}", set("/var/file", ACCESS, &list([6, 4, 4, 4, 0], u32::MAX)));
    println!("another attribute: {}", set("/var/file", "user.note", b"x"));
}

fn name_of(errno: rustix::io::Errno) -> String {
    format!("error {}", errno.raw_os_error())
}

fn crowds_are_answered() -> Outcome {
    let root = root();
    assert_eq!(inside(&root.sandbox(), "crowd"), "8 threads\n");
    says(
        &root,
        "for n in 1 2 3 4 5 6 7 8; do (for m in 1 2 3 4 5 6 7 8 9 10; do echo x >f$n.$m; chown $n:$m f$n.$m
            [ \"$(stat -c %u:%g f$n.$m)\" = $n:$m ] || echo wrong; done) & done; wait; stat -c %u f* | sort | uniq -c
         storm() { [ $1 = 0 ] || { storm $(($1 - 1)) & storm $(($1 - 1)) & wait; stat -c %u f3.1; }; }; storm 6 | sort | uniq -c",
        "10 1\n10 2\n10 3\n10 4\n10 5\n10 6\n10 7\n10 8\n63 3",
    );
    Ok(())
}

/// Eight threads give files away and look at them, in a process of its own.
pub(super) fn crowd() {
    let folder = std::path::Path::new("/var");
    std::thread::scope(|scope| {
        for number in 0..8_u32 {
            scope.spawn(move || {
                let path = folder.join(number.to_string());
                fs::write(&path, "").unwrap();
                for round in 0..50 {
                    std::os::unix::fs::chown(&path, Some(number), Some(round)).unwrap();
                    let file = fs::File::open(&path).unwrap();
                    for stat in [fs::metadata(&path).unwrap(), file.metadata().unwrap()] {
                        assert_eq!((stat.uid(), stat.gid()), (number, round));
                    }
                }
            });
        }
    });
    println!("8 threads");
}
