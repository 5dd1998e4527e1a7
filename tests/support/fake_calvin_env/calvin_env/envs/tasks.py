"""Predicates with the interface of calvin_env's Tasks."""


class Tasks:
    def __init__(self, tasks):
        self.tasks = {name: (getattr(self, kind), arguments) for name, (kind, *arguments) in tasks.items()}

    def get_task_info_for_set(self, start_info, end_info, task_filter):
        return {
            name
            for name, (predicate, arguments) in self.tasks.items()
            if name in task_filter and predicate(*arguments, start_info, end_info)
        }

    @staticmethod
    def lifted(block, start, end):
        before, after = (info["scene_info"]["movable_objects"][block] for info in (start, end))
        return after["current_pos"][2] - before["current_pos"][2] > 0.05

    @staticmethod
    def switched(light, state, start, end):
        before, after = (info["scene_info"]["lights"][light]["logical_state"] for info in (start, end))
        return before != state and after == state

    @staticmethod
    def never(start, end):
        return False
