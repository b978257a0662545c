# exercise.py EXPECTED DISK: everything on the mounted disk is as expected; then thousands of names change.
import hashlib, json, os, stat, sys

expected = json.load(open(sys.argv[1]))
root = sys.argv[2].encode()
wrong = []


def compare(path, what, found, wanted):
    if found != wanted:
        wrong.append(f"{path!r}: {what} is {found!r}, not {wanted!r}")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


kinds = {stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFDIR: "folder"}
count = 0
for entry in expected["entries"]:
    path = os.path.join(root, bytes.fromhex(entry["path"]))
    found = os.lstat(path)
    count += 1
    if "same" in entry:
        first = os.path.join(root, bytes.fromhex(entry["same"]))
        compare(path, "inode", found.st_ino, os.lstat(first).st_ino)
        continue
    kind = kinds.get(stat.S_IFMT(found.st_mode), "special")
    compare(path, "kind", kind, entry["kind"])
    compare(path, "owner", (found.st_uid, found.st_gid), (entry["uid"], entry["gid"]))
    if path.rstrip(b"/") != root:
        compare(path, "time", found.st_mtime_ns, int(entry["mtime"]))
    if kind == "link":
        compare(path, "target", os.readlink(path).hex(), entry["content"])
        continue
    compare(path, "mode", stat.S_IMODE(found.st_mode), entry["mode"])
    attributes = {name: os.getxattr(path, name).hex() for name in os.listxattr(path)} if kind != "special" else {}
    compare(path, "attributes", attributes, entry["xattrs"])
    if kind == "file":
        compare(path, "content", digest(path), entry["content"])

many = os.path.join(root, b"many")
names = [f"{at:06}-{'long' * (at % 40)}".encode() for at in range(expected["many"])]
compare(many, "names", sorted(os.listdir(many)) == sorted(names), True)
for name in names[::7]:
    os.lstat(os.path.join(many, name))
if wrong:
    sys.exit("\n".join(wrong[:20]))

for at, name in enumerate(names[:9000]):
    path = os.path.join(many, name)
    if at % 3 == 0:
        os.unlink(path)
    elif at % 3 == 1:
        os.rename(path, path[:-1] + b"renamed")
    else:
        open(path + b"new", "xb").close()
with open(os.path.join(root, b"filled"), "wb") as file:
    for _ in range(100):
        file.write(os.urandom(1 << 20))
    os.fsync(file.fileno())
with open(os.path.join(root, b"scattered"), "r+b") as file:
    file.truncate(5 << 20)
os.setxattr(os.path.join(root, b"filled"), "user.made", b"x" * 3000)
print(f"{count} entries and {len(names)} names are right")
