"""Every secret gets another value while a device sends: the images' entry points read them all anew."""

from tests.stack.test_rotation import (
    rotated,
    test_again_nothing_is_to_be_done,
    test_all_have_another_value,
    test_an_old_password_opens_no_database,
    test_an_old_password_opens_no_node,
    test_nothing_was_lost_and_nobody_waited_long,
)
