"""What several tests use: lines of containers and records of auditd."""

from __future__ import annotations

AT = "2016-10-06T00:17:09.66979420"
CRI = [
    f"{AT}2Z stdout F one",
    f"{AT}3Z stdout P two ",
    f"{AT}4Z stderr P three\t",
    f"{AT}5Z stdout P three",
    f"{AT}6Z stdout F  four",
    f"{AT}7Z stderr F five",
    f"{AT}8+02:00 stderr F",
    f"{AT}9Z stdout F \tat a.b",
    f"{AT}9Z stdout F:x {{}}",
    f"{AT}9Z stdout X y",
]
AUDIT = [
    "type=SYSCALL msg=audit(1684329817.579:2995): arch=c000003e success=yes exit=0 a0=237f568"
    ' comm="a b" exe="/usr/bin/perl" key=(null)',
    "type=PROCTITLE msg=audit(1684329817.579:2995): proctitle=2F7573722F62696E2F7375",
    "node=h1 type=USER_AUTH msg=audit(1684329818.001:2996): pid=1 uid=0 ses=42"
    ' msg=\'op=PAM:authentication acct="root" exe="/usr/bin/su" res=failed\'',
    'type=AVC msg=audit(1684329819.002:2997): avc:  denied  { read } for  pid=5 comm="x" name="y"',
    'type=SYSCALL msg=audit(1684329820.000:2998): success=no a0=1\x1dARCH=x86_64 UID="bui"',
    "type=CWD msg=audit(1684329820.000:2998):",
    "type=EOE msg=audit(1684329820.000:1): x",
    'type=PATH msg=audit(1684329820.000:2998): item=0 item=1 name="a=b c"',
]
