"""Making it happen. A task goes ``queue`` → (backend) → ``worker`` or ``process_task`` → ``attempt`` → ``settler``."""
